#!lua
-- Counts one request in all of its counters, or in none. The same judgement as weigh() in limits/tally.py, which
-- says why it is right; the tests hold the two against each other.
--
-- KEYS  the counters, all with one hash tag
-- ARGV  1: holder of the slots   2: a lease, microseconds   3: grace, seconds   4: now, microseconds, or 0 for
--       the server's clock       then for each key: kind, limit, and interval (rate) or end (count) or 0
-- Returns for each key: fits (1 or 0), remaining, wait.
local holder, lease, grace, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local admitted, answer, after = true, {}, {}
for i, key in ipairs(KEYS) do
  local kind, limit, argument = ARGV[i * 3 + 2], tonumber(ARGV[i * 3 + 3]), tonumber(ARGV[i * 3 + 4])
  local fits, remaining, wait
  if kind == 'rate' then
    local full = now + limit * argument
    local due = math.min(math.max(tonumber(redis.call('GET', key) or 0), now), full)
    local room = full - due - argument
    fits = room >= 0
    remaining = fits and math.floor(room / argument) or 0
    wait = fits and 0 or -room
    after[i] = due + argument
  else
    local state
    if kind == 'slots' then
      redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
      state = redis.call('ZCARD', key)
    else
      state = tonumber(redis.call('GET', key) or 0)
    end
    fits = state < limit
    remaining = fits and limit - state - 1 or 0
    if fits then
      wait = 0
    elseif kind == 'slots' then
      wait = 1000000
    else
      wait = math.max(0, argument * 1000000 - now)
    end
    after[i] = state + 1
  end
  admitted = admitted and fits
  answer[i * 3 - 2], answer[i * 3 - 1], answer[i * 3] = fits and 1 or 0, remaining, wait
end
if not admitted then
  return answer
end

for i, key in ipairs(KEYS) do
  local kind, argument = ARGV[i * 3 + 2], tonumber(ARGV[i * 3 + 4])
  if kind == 'slots' then
    redis.call('ZADD', key, now + lease, holder)
    redis.call('PEXPIRE', key, math.ceil(lease / 1000))
  else
    -- %.0f: the default format would round what has more than 14 digits.
    local value = string.format('%.0f', after[i])
    if kind == 'rate' then
      redis.call('SET', key, value, 'PX', string.format('%.0f', math.ceil((after[i] - now) / 1000) + 1))
    elseif argument > 0 then
      redis.call('SET', key, value, 'EXAT', string.format('%.0f', argument + grace))
    else
      redis.call('SET', key, value)
    end
  end
end
return answer
