-- An engine whose every chunk says when it was sent: CLOCK_MONOTONIC, nanoseconds, in front of the text.
-- The model's name says how many milliseconds lie between chunks (`pace-20`), `max_tokens` how many there are.

local ffi = require "ffi"
ffi.cdef [[
    typedef struct { long seconds; long nanoseconds; } stamp_t;
    int clock_gettime(int clock, stamp_t *into);
]]
local CLOCK_MONOTONIC = 1
local into = ffi.new("stamp_t")

local function now_ns()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, into)
    return string.format("%d%09d", tonumber(into.seconds), tonumber(into.nanoseconds))
end

local head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"'
local function frame(model, rest) return "data: " .. head .. model .. '","choices":[' .. rest .. "\n\n" end

local function usage(words, chunks)
    return '"usage":{"prompt_tokens":' .. words .. ',"total_tokens":' .. words + chunks
        .. ',"completion_tokens":' .. chunks .. "}}"
end

local function stream(body, model, words)
    local chunks = tonumber(body:match('"max_tokens": ?(%d+)')) or 16
    local pace = (tonumber(model:match("pace%-(%d+)")) or 0) / 1000
    local print, flush, sleep = ngx.print, ngx.flush, ngx.sleep
    ngx.header["Content-Type"] = "text/event-stream; charset=utf-8"
    print(frame(model, '{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'))
    flush(true)
    for _ = 1, chunks do
        if pace > 0 then sleep(pace) end
        local text = '{"index":0,"delta":{"content":"' .. now_ns() .. ' "},"finish_reason":null}]}'
        if not print(frame(model, text)) or not flush(true) then return end
    end
    print(frame(model, '{"index":0,"delta":{"content":""},"finish_reason":"length"}]}'))
    print(frame(model, "]," .. usage(words, chunks)))
    print("data: [DONE]\n\n")
end

function answer()
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    local model = body:match('"model": ?"([^"]+)"') or "pace-0"
    local _, words = body:gsub(" ", " ")
    if body:find('"stream": ?true') then return stream(body, model, words) end
    ngx.header["Content-Type"] = "application/json"
    ngx.print(head .. model .. '","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},'
        .. '"finish_reason":"length"}],' .. usage(words, 1))
end
