-- Asks for paths in turn, from a file that lists one a line. wrk has prepared nothing: each request is made once, before the first is sent.
local requests = {}
local next = 0

function init(arguments)
    for path in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", path)
    end
    -- Threads do not follow each other through the list.
    math.randomseed(tonumber(tostring(requests):match("0x(%x+)"), 16) % 2147483647)
    next = math.random(#requests)
end

function request()
    next = next % #requests + 1
    return requests[next]
end
