#!lua
-- Counts one request in all of its counters, or in none. The same decision as weigh() in limits/counter.py,
-- which says why it is right. Tests compare the two.
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

local function put_rate(key, due)
  -- %.0f: the default format would round numbers of more than 14 digits.
  redis.call('SET', key, string.format('%.0f', due), 'PX', string.format('%.0f', math.ceil((due - now) / 1000) + 1))
end

local admitted, answer, after = true, {}, {}
for i, key in ipairs(KEYS) do
  local kind, limit, argument = ARGV[i * 3 + 2], tonumber(ARGV[i * 3 + 3]), tonumber(ARGV[i * 3 + 4])
  local fits, remaining, wait
  if kind == 'rate' then
    local full = now + limit * argument
    local state = tonumber(redis.call('GET', key) or 0)
    local due = math.min(math.max(state, now), full)
    local room = full - due - argument
    fits = room >= 0
    remaining = fits and math.floor(room / argument) or 0
    wait = fits and 0 or -room
    after[i] = due + argument
    if state > full then
      put_rate(key, full)
    end
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
  elseif kind == 'rate' then
    put_rate(key, after[i])
  elseif argument > 0 then
    -- The end comes from the clock of a gateway. By this clock it may be past, and SET with a past end deletes.
    local ends = math.max(argument, now / 1000000) + grace
    redis.call('SET', key, string.format('%.0f', after[i]), 'EXAT', string.format('%.0f', ends))
  else
    redis.call('SET', key, string.format('%.0f', after[i]))
  end
end
return answer
