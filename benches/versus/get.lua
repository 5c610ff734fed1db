-- GET /get of a random key that `vatn bench` knows.
local keys = tonumber(os.getenv("VATN_KEYS"))

function init()
  math.randomseed(os.time())
end

function request()
  return wrk.format("GET", string.format("/get?key=bench:v:%010d", math.random(0, keys - 1)))
end
