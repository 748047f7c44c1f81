import { people } from './openai-world.ts';

/** An attack on OpenAI's API with a good token of the agent, and the exact answer that it must get. */
export interface OpenAiAttack {
  readonly name: string;
  readonly status: number;
  readonly code: string;
  /** @default '/v1/chat/completions' */
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text goes as it is. */
  readonly body: unknown;
  readonly chunked?: boolean;
}

const secret = 'hunter2';
const messages = [{ role: 'user', content: `${secret} is my password` }];
const chat = { model: 'soma-tiny', messages, max_tokens: 4 };
const nobody = '00000000-0000-4000-8000-000000000000';
const invalid = (name: string, body: unknown): OpenAiAttack => ({ name, status: 400, code: 'invalid_request', body });
const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
const withSchema = (schema: string): string =>
  JSON.stringify({
    ...chat,
    tools: [{ type: 'function', function: { name: 'memory.recall', parameters: 'SCHEMA' } }],
  }).replace('"SCHEMA"', schema);

/** Attacks that are refused before any model is asked. `hunter2` in them may not come back in any form. */
export const attacks: readonly OpenAiAttack[] = [
  { name: 'two megabytes', status: 413, code: 'body_too_large', body: { ...chat, user: 'x'.repeat(2_000_000) } },
  {
    name: 'more than a megabyte in chunks',
    ...{ status: 413, code: 'body_too_large', chunked: true, body: { ...chat, user: 'x'.repeat(1_060_000) } },
  },
  { name: 'no JSON', status: 415, code: 'media_type', headers: { 'content-type': 'text/plain' }, body: secret },
  invalid('half a body', `{"model": "soma-tiny", "messages": [{"role": "${secret}`),
  invalid('a list', [chat]),
  invalid('null', 'null'),
  invalid('messages that are none', { ...chat, messages: secret }),
  invalid('a role that is none', { ...chat, messages: [{ role: 'root', content: secret }] }),
  invalid('a picture', { ...chat, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: secret }] }] }),
  invalid('5,000 messages', {
    ...chat,
    messages: Array.from({ length: 5000 }, () => ({ role: 'user', content: 'a' })),
  }),
  invalid('a field that would be ignored', { ...chat, functions: [] }),
  invalid('a tenant in the body', { ...chat, tenant: 'globex' }),
  invalid(
    'a prototype',
    `{"model":"soma-tiny","messages":[{"role":"user","content":"a"}],"__proto__":{"n":1},"constructor":{}}`,
  ),
  invalid('more tokens than there are', { ...chat, max_tokens: 2 ** 53 }),
  invalid('a negative number of tokens', { ...chat, max_tokens: -1 }),
  invalid('half a token', { ...chat, max_tokens: 0.5 }),
  invalid('a thousand answers', { ...chat, n: 1000 }),
  invalid('a thousand stops', { ...chat, stop: Array.from({ length: 1000 }, () => 'a') }),
  invalid('129 tools', {
    ...chat,
    tools: Array.from({ length: 129 }, (_, index) => ({ type: 'function', function: { name: `t${index}` } })),
  }),
  invalid('a tool given twice', {
    ...chat,
    tools: ['memory.recall', 'memory.recall'].map((name) => ({ type: 'function', function: { name } })),
  }),
  invalid('a tool with a path for a name', {
    ...chat,
    tools: [{ type: 'function', function: { name: '../web.fetch' } }],
  }),
  invalid('a choice that is no tool', { ...chat, tool_choice: { type: 'function', function: { name: 'web.fetch' } } }),
  invalid('a schema 100 levels deep', withSchema(nested(100))),
  invalid('a schema 100,000 levels deep', withSchema(nested(100_000))),
  {
    name: "another tenant's model by a path",
    ...{ status: 404, code: 'model_not_found', body: { ...chat, model: '../globex/soma-tiny' } },
  },
  { name: 'a name of Object', status: 404, code: 'model_not_found', body: { ...chat, model: '__proto__' } },
  {
    name: 'a tool of nobody',
    ...{ status: 403, code: 'tool_denied' },
    body: { ...chat, tools: [{ type: 'function', function: { name: 'constructor' } }] },
  },
  { name: 'a foreign session', status: 404, code: 'not_found', headers: { 'x-soma-session': nobody }, body: chat },
  {
    name: 'a session that is none',
    status: 400,
    code: 'invalid_request',
    headers: { 'x-soma-session': '*' },
    body: chat,
  },
  { name: 'a foreign team', status: 403, code: 'forbidden', headers: { 'x-soma-team': 'red' }, body: chat },
  {
    name: 'every team',
    status: 403,
    code: 'forbidden',
    headers: { 'x-soma-team': people.agent.teams.join(',') },
    body: chat,
  },
  { name: 'a lane that is none', status: 400, code: 'invalid_request', headers: { 'x-soma-lane': 'vip' }, body: chat },
  {
    ...invalid('3,000 texts', { model: 'soma-embed', input: Array.from({ length: 3000 }, () => 'a') }),
    path: '/v1/embeddings',
  },
  { ...invalid('numbers as texts', { model: 'soma-embed', input: [1, 2] }), path: '/v1/embeddings' },
  { ...invalid('an empty text', { model: 'soma-embed', input: '' }), path: '/v1/embeddings' },
];
