-- Puts a new file with every request: no two have the same bytes.
local threads = 0
local size, run
local count = 0

function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

function init(arguments)
    size, run = tonumber(arguments[1]), arguments[2]
    rest = string.rep("x", size - 32)
end

function request()
    count = count + 1
    local name = string.format("%s-%d-%d", run, number, count)
    return wrk.format("PUT", "/" .. name, nil, string.format("%-32s", name) .. rest)
end
