-- GET /put of a random key with a value of 100 bytes.
local keys = tonumber(os.getenv("VATN_KEYS"))
local value = string.rep("x", 100)

function init()
  math.randomseed(os.time())
end

function request()
  return wrk.format("GET", string.format("/put?bench:v:%010d=%s", math.random(0, keys - 1), value))
end
