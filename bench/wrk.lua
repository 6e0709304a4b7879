-- What wrk sends and tells: chat completions over and over, one body after the other.
--
--     wrk … -s bench/wrk.lua URL -- BODIES HEADERS [LEDGER]
--
-- BODIES has a JSON body a line, HEADERS a `name: value` a line. With a LEDGER, a file, every answer
-- is noted there: its status, its trace and who gave it. That takes time, so it is for checks only.
-- The result is one line of JSON.

local bodies, requests, next_one = {}, {}, 0

function init(args)
   wrk.method = "POST"
   for line in io.lines(args[2]) do
      local name, value = line:match("^(.-): (.*)$")
      wrk.headers[name] = value
   end
   for line in io.lines(args[1]) do
      bodies[#bodies + 1] = line
   end
   wrk.body = bodies[1]
   if #bodies > 1 then
      for n, body in ipairs(bodies) do
         requests[n] = wrk.format(nil, nil, nil, body)
      end
      request = function()
         next_one = next_one % #requests + 1
         return requests[next_one]
      end
   end
   if args[3] then
      local ledger = io.open(args[3], "w")
      response = function(status, headers)
         ledger:write(status, " ", headers["x-understudy-trace"] or "-", " ",
            headers["x-understudy-route"] or "-", "\n")
      end
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"seconds":%.6f,"requests":%d,"not_2xx":%d,"broken":%d,"p50_ms":%.4f,"p99_ms":%.4f}\n',
      summary.duration / 1e6, summary.requests, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
