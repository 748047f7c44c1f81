import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { AnthropicProvider } from './anthropic-provider.ts';
import { anthropicRequest } from './anthropic-request.ts';
import type { ModelError } from './errors.ts';
import type { ChatChunk, ChatRequest } from './types.ts';

// What the adapter sends is of the SDK's own type, so the compiler checks every field; here is what it means.

const weather = {
  type: 'object',
  properties: { location: { type: 'string' } },
  required: ['location'],
};
const request: ChatRequest = {
  model: 'claude-sonnet-5-5',
  messages: [
    { role: 'system', content: 'Be brief.' },
    {
      role: 'user',
      content: [
        { type: 'text', text: 'Compare ' },
        { type: 'text', text: 'two cities.' },
      ],
    },
    {
      role: 'assistant',
      content: null,
      tool_calls: [
        { id: 't1', type: 'function', function: { name: 'get_weather', arguments: '{"location":"Berlin"}' } },
        { id: 't2', type: 'function', function: { name: 'get_weather', arguments: '' } },
      ],
    },
    { role: 'tool', tool_call_id: 't1', content: '12' },
    { role: 'tool', tool_call_id: 't2', content: '14' },
    { role: 'user', content: 'Go on.' },
    { role: 'developer', content: 'In German.' },
  ],
  tools: [
    { type: 'function', function: { name: 'get_weather', description: 'Weather', parameters: weather, strict: true } },
  ],
  tool_choice: 'required',
  parallel_tool_calls: false,
  temperature: 0.5,
  stop: ['END'],
  max_tokens: 100,
  seed: 7,
  lane: 'batch',
};

test('a conversation with tools, in the words of the Messages API', () => {
  assert.deepEqual(anthropicRequest(request, 'p'), {
    model: 'claude-sonnet-5-5',
    max_tokens: 100,
    stream: true,
    system: 'Be brief.\n\nIn German.',
    temperature: 0.5,
    stop_sequences: ['END'],
    messages: [
      { role: 'user', content: [{ type: 'text', text: 'Compare two cities.' }] },
      {
        role: 'assistant',
        content: [
          { type: 'tool_use', id: 't1', name: 'get_weather', input: { location: 'Berlin' } },
          { type: 'tool_use', id: 't2', name: 'get_weather', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 't1', content: '12' },
          { type: 'tool_result', tool_use_id: 't2', content: '14' },
          { type: 'text', text: 'Go on.' },
        ],
      },
    ],
    tools: [{ name: 'get_weather', description: 'Weather', input_schema: weather, strict: true }],
    tool_choice: { type: 'any', disable_parallel_tool_use: true },
  });
});

test('a JSON schema becomes the format of the output', () => {
  const schema = { type: 'object', properties: {}, additionalProperties: false };
  const response_format = { type: 'json_schema' as const, json_schema: { name: 'answer', schema } };
  const { output_config } = anthropicRequest({ model: 'm', messages: [], response_format }, 'p');
  assert.deepEqual(output_config, { format: { type: 'json_schema', schema } });
});

const choices = [
  ['none', { type: 'none' }],
  ['auto', { type: 'auto' }],
  ['required', { type: 'any' }],
  [
    { type: 'function', function: { name: 'get_weather' } },
    { type: 'tool', name: 'get_weather' },
  ],
] as const;
for (const [choice, expected] of choices) {
  test(`tool_choice ${JSON.stringify(choice)}`, () => {
    const { tools } = request;
    const body = anthropicRequest({ model: 'm', messages: [], tools, tool_choice: choice }, 'p');
    assert.deepEqual(body.tool_choice, expected);
  });
}

const refused: readonly (readonly [Partial<ChatRequest>, string, RegExp])[] = [
  [{ temperature: 1.5 }, 'unsupported', /temperature above 1: it is 1\.5/],
  [{ frequency_penalty: 0.5 }, 'unsupported', /frequency_penalty/],
  [{ response_format: { type: 'json_object' } }, 'unsupported', /use json_schema/],
  [
    {
      messages: [
        { role: 'assistant', tool_calls: [{ id: 't9', type: 'function', function: { name: 'f', arguments: '{' } }] },
      ],
    },
    'invalid_request',
    /tool call t9 are no JSON/,
  ],
];
for (const [fields, code, message] of refused) {
  test(`${JSON.stringify(fields)} is ${code}`, () => {
    assert.throws(() => anthropicRequest({ model: 'm', messages: [], ...fields }, 'p'), { code, message });
  });
}

/**
 * Streams as in Anthropic's documentation, shortened.
 * Source: https://platform.claude.com/docs/en/build-with-claude/streaming
 */
const published = {
  tool: `event: message_start
data: {"type":"message_start","message":{"id":"msg_014p7gG3wDgGV9EUtLvnow3U","type":"message","role":"assistant","model":"claude-opus-4-1-20250805","stop_sequence":null,"usage":{"input_tokens":472,"output_tokens":2},"content":[],"stop_reason":null}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Okay"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":","}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"location\\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":" \\"San Francisco, CA\\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

`,
  overloaded: `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude-opus-4-1-20250805","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}

event: error
data: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

`,
} as const;

describe('the events that Anthropic documents, over a real connection', () => {
  const folder = mkdtempSync(join(tmpdir(), 'anthropic-'));
  let server: Server;
  let provider: AnthropicProvider;
  let stream: keyof typeof published = 'tool';
  let headers: NodeJS.Dict<string | string[]> = {};

  before(async () => {
    const authority = await createAuthority('test authority');
    const names = { commonName: 'anthropic', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
    const leaf = await issueCertificate(authority, { ...names, usages: ['server'] });
    writeFileSync(join(folder, 'ca.crt'), authority.certificate);
    writeFileSync(join(folder, 'key'), 'a key of this test\n');
    server = createServer({ cert: leaf.certificate, key: leaf.key }, (asked, response) => {
      headers = asked.headers;
      asked.resume();
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(published[stream]);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    provider = new AnthropicProvider({
      ...{ name: 'claude', models: ['m'], url: `https://127.0.0.1:${(server.address() as AddressInfo).port}` },
      ...{ credentialFile: join(folder, 'key'), caFile: join(folder, 'ca.crt') },
    });
  });
  after(async () => {
    await provider?.close();
    server?.close();
    rmSync(folder, { recursive: true });
  });

  async function take(): Promise<ChatChunk[]> {
    const chunks: ChatChunk[] = [];
    const asked: ChatRequest = { model: 'm', messages: [{ role: 'user', content: 'Weather?' }] };
    for await (const chunk of provider.complete(asked, new AbortController().signal)) chunks.push(chunk);
    return chunks;
  }

  it('a call of a tool comes in pieces that make its JSON, and ends the answer as such', async () => {
    stream = 'tool';
    const chunks = await take();
    assert.equal(chunks.map(({ text }) => text).join(''), 'Okay,');
    const pieces = chunks.flatMap(({ toolCalls = [] }) => toolCalls);
    assert.deepEqual(pieces[0], { index: 0, id: 'toolu_01T1x1fJ34qAmk2tNTrN7Up6', name: 'get_weather', arguments: '' });
    assert.ok(pieces.every(({ index }) => index === 0));
    assert.deepEqual(JSON.parse(pieces.map((piece) => piece.arguments).join('')), { location: 'San Francisco, CA' });
    const last = chunks.at(-1);
    assert.deepEqual([last?.finish, last?.usage], ['tool_calls', { promptTokens: 472, completionTokens: 89 }]);
  });

  it('shows the key and the version of the API as it asks for them', () => {
    assert.equal(headers.authorization, 'Bearer a key of this test', "the SDK's own way");
    assert.match(String(headers['anthropic-version']), /^\d{4}-\d\d-\d\d$/);
  });

  it('an overload in the middle of a stream is told as one', async () => {
    stream = 'overloaded';
    await assert.rejects(take(), (error: ModelError) => error.code === 'overloaded' && error.provider === 'claude');
  });
});
