-- Events in binary mode, each with an id of its own; with a number behind `--`, ids up to that number, again and again.
local threads = {}

function setup(thread)
   thread:set("name", #threads)
   table.insert(threads, thread)
end

function init(arguments)
   last = tonumber(arguments[1]) or math.huge
   number, duplicates = 1, 0
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   wrk.headers["ce-specversion"] = "1.0"
   wrk.headers["ce-source"] = "/wrk"
   wrk.headers["ce-type"] = "shop.placed"
end

function request()
   number = number < last and number + 1 or 3 -- wrk asks the first thread for one that it does not send
   wrk.headers["ce-id"] = name .. "-" .. number
   return wrk.format(nil, nil, nil, '{"sku": "s' .. number % 50 .. '"}')
end

function response(status, headers)
   if headers["genesis-duplicate"] then duplicates = duplicates + 1 end
end

function done(summary)
   local found, made = summary.errors, math.huge
   local duplicates = 0
   for _, thread in ipairs(threads) do
      made = math.min(made, thread:get("number"))
      duplicates = duplicates + thread:get("duplicates")
   end
   local errors = found.status + found.connect + found.read + found.write + found.timeout
   local form = '\n{"answers": %d, "errors": %d, "duplicates": %d, "made_by_each": %d}\n'
   io.write(string.format(form, summary.requests, errors, duplicates, made))
end
