-- Another path with each request, so that nothing that was decided of one helps the next.
local count = 0
request = function()
  count = count + 1
  return wrk.format("GET", (wrk.path:gsub("v1/models", "v1/models/" .. count)))
end
