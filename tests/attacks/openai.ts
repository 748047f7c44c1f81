import { type Attack, asAgent, bearer, byRequest, type WireRequest } from './attack.ts';
import type { World } from './world.ts';

const json: readonly [string, string] = ['Content-Type', 'application/json'];
const nobody = '00000000-0000-4000-8000-000000000000';
const messages = [{ role: 'user', content: 'hunter2 is my password' }];
const chat = { model: 'soma-tiny', messages, max_tokens: 1 };

const post = (world: World, body: unknown, ...headers: (readonly [string, string])[]): WireRequest => ({
  method: 'POST',
  target: '/v1/chat/completions',
  headers: [asAgent(world), json, ...headers],
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

const openAi = (status: number, code: string, requests: Readonly<Record<string, (world: World) => WireRequest>>) =>
  byRequest(status, code, requests).map((attack): Attack => ({ ...attack, openAi: true }));

/** Requests of models that are refused before any model is asked, in the form of OpenAI's API. */
export const chatAttacks: Attack[] = [
  ...openAi(401, 'invalid_api_key', {
    'a chat without a key': () => ({
      ...{ method: 'POST', target: '/v1/chat/completions', headers: [json], body: JSON.stringify(chat) },
    }),
    'a chat with a key of OpenAI': () => ({
      ...{ method: 'POST', target: '/v1/chat/completions', body: JSON.stringify(chat) },
      headers: [json, bearer('sk-proj-0000000000000000000000000000000000000000000000')],
    }),
    'models without a key': () => ({ target: '/v1/models' }),
  }),
  ...openAi(413, 'body_too_large', {
    'a chat of two megabytes': (world) => ({
      ...post(world, ''),
      headers: [asAgent(world), json, ['Content-Length', '2000000']],
    }),
  }),
  ...openAi(415, 'media_type', {
    'a chat as text': (world) => ({
      ...post(world, chat),
      headers: [asAgent(world), ['Content-Type', 'text/plain']],
    }),
  }),
  ...openAi(400, 'invalid_request', {
    'a chat of half a body': (world) => post(world, '{"model": "soma-tiny", "messages": [{"role": "hunter2'),
    'a chat for another tenant': (world) => post(world, { ...chat, tenant: 'globex' }),
    'a chat with a role that is none': (world) => post(world, { ...chat, messages: [{ role: 'root', content: 'a' }] }),
    'a thousand answers': (world) => post(world, { ...chat, n: 1000 }),
    'more tokens than there are': (world) => post(world, { ...chat, max_tokens: 2 ** 53 }),
    'a tool with a path for a name': (world) =>
      post(world, { ...chat, tools: [{ type: 'function', function: { name: '../web.fetch' } }] }),
    'a session that is none': (world) => post(world, chat, ['X-Soma-Session', '../../sessions']),
    'two sessions': (world) => post(world, chat, ['X-Soma-Session', nobody], ['X-Soma-Session', world.session]),
    'a lane that is none': (world) => post(world, chat, ['X-Soma-Lane', 'vip']),
  }),
  ...openAi(404, 'not_found', {
    'a session of nobody': (world) => post(world, chat, ['X-Soma-Session', nobody]),
    'a session of another tenant for a chat': (world) => post(world, chat, ['X-Soma-Session', world.otherSession]),
  }),
  ...openAi(404, 'model_not_found', {
    'a model of nobody': (world) => post(world, { ...chat, model: '../../soma-tiny' }),
    'a model named like a part of Object': (world) => post(world, { ...chat, model: '__proto__' }),
  }),
  ...openAi(403, 'forbidden', {
    'a team of others': (world) => post(world, chat, ['X-Soma-Team', 'a-team-of-others']),
  }),
  ...openAi(403, 'tool_denied', {
    'a tool of nobody': (world) =>
      post(world, { ...chat, tools: [{ type: 'function', function: { name: 'constructor' } }] }),
  }),
];

const put = (world: World, target: string, body: unknown = { tokens: 1_000_000_000 }): WireRequest => ({
  method: 'PUT',
  target,
  headers: [asAgent(world), json],
  body: JSON.stringify(body),
});

/** An agent that would raise its own limits. */
export const budgetAttacks: Attack[] = [
  ...byRequest(403, 'forbidden', {
    'an agent that raises the budget of its tenant': (world) => put(world, '/v1/budgets/tenant/acme/month'),
    'an agent that raises its own': (world) => put(world, '/v1/budgets/persona/acme-agent/day'),
    'an agent that removes one': (world) => ({
      ...{ method: 'DELETE', target: '/v1/budgets/tenant/acme/month', headers: [asAgent(world)] },
    }),
  }),
  ...byRequest(400, 'invalid-request', {
    'a period that is none': (world) => put(world, '/v1/budgets/tenant/acme/year'),
    'a scope that is none': (world) => put(world, '/v1/budgets/everybody/acme/day'),
    'a negative limit': (world) => put(world, '/v1/budgets/tenant/acme/day', { tokens: -1 }),
    'a path for an id': (world) => put(world, '/v1/budgets/team/..%2F..%2Facme/day'),
  }),
];
