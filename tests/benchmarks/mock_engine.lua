-- What the mock engine answers: bytes of vLLM's form, made once.
-- A request says with `max_tokens` how many chunks it wants, and with `"user": "pace=SECONDS"` how far apart.

local head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo","choices":['
local function frame(rest) return "data: " .. head .. rest .. "\n\n" end

local role = frame('{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}')
local token = frame('{"index":0,"delta":{"content":" tok"},"logprobs":null,"finish_reason":null,"token_ids":null}]}')
local finish = frame('{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}')
local done = "data: [DONE]\n\n"

local whole = '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"demo","choices":[{"index":0,'
    .. '"message":{"role":"assistant","content":"Hello there, this is an answer of some length for the benchmark.",'
    .. '"refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},'
    .. '"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],"service_tier":null,'
    .. '"system_fingerprint":null,"usage":{"prompt_tokens":9,"total_tokens":25,"completion_tokens":16,'
    .. '"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}'

local function usage(chunks)
    return frame('],"usage":{"prompt_tokens":9,"total_tokens":' .. 9 + chunks .. ',"completion_tokens":' .. chunks .. "}}")
end

local function stream(body)
    local chunks = tonumber(body:match('"max_tokens": ?(%d+)')) or 16
    local pace = tonumber(body:match('"user": ?"pace=([%d.]+)"')) or 0
    local print, flush, sleep = ngx.print, ngx.flush, ngx.sleep
    ngx.header["Content-Type"] = "text/event-stream; charset=utf-8"
    print(role)
    flush(true)
    for _ = 1, chunks do
        if pace > 0 then sleep(pace) end
        if not print(token) or not flush(true) then return end
    end
    print(finish)
    if body:find('"include_usage": ?true') then print(usage(chunks)) end
    print(done)
end

function answer()
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    if body:find('"stream": ?true') then return stream(body) end
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #whole
    ngx.print(whole)
end
