/**
 * What is usually written: the token verified by jose on each request, OPA's server asked over HTTP, OpenFGA asked over
 * HTTP, a line of log. It counts no quota and records no verdict.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { createLogger, fetchTrusting, readTlsFiles } from '@somagent/kit';
import { locateModel, OpenFga, objectOf, userOf } from '@somagent/relations';
import { Hono } from 'hono';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { report } from './reporting.ts';
import { rules, type ServerConfig } from './world.ts';

const config = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as ServerConfig;
const opa = process.argv[3] ?? '';
const log = createLogger({ service: 'naive' });
const keys = createLocalJWKSet(config.jwks);
const openfga = fetchTrusting(config.openfga.caFile);
const { store, model } = await locateModel(new OpenFga(config.openfga));
const preshared = readFileSync(config.openfga.tokenFile, 'utf8').trim();

interface Claims {
  readonly tenant: string;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  readonly azp: string;
}

async function isRelated(tenant: string, subject: string, id: string): Promise<boolean> {
  const key = { user: userOf({ tenant, subject }), relation: 'can_view', object: objectOf('session', tenant, id) };
  const response = await openfga(`${config.openfga.url}/stores/${store}/check`, {
    method: 'POST',
    headers: { authorization: `Bearer ${preshared}`, 'content-type': 'application/json' },
    body: JSON.stringify({ authorization_model_id: model, tuple_key: key }),
  });
  return ((await response.json()) as { allowed?: boolean }).allowed === true;
}

async function isAllowed(input: object): Promise<boolean> {
  const response = await fetch(`${opa}/v1/data/soma/gateway/verdict`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ input }),
  });
  return ((await response.json()) as { result?: { allow?: boolean } }).result?.allow === true;
}

const app = new Hono();
app.get('/v1/sessions/:id', async (context) => {
  const token = context.req.header('authorization')?.slice('Bearer '.length) ?? '';
  const { payload } = await jwtVerify<Claims>(token, keys, { ...rules, algorithms: ['RS256'] });
  const { sub: subject = '', tenant, roles, teams, azp: client } = payload;
  const id = context.req.param('id');
  const held = await isRelated(tenant, subject, id);
  const allowed = await isAllowed({
    subject: { kind: 'service-account', tenant, id: subject, roles, teams, client, scopes: null },
    action: { service: 'gateway', route: 'readSession', method: 'GET', capability: 'session:read', audit: 'read' },
    resource: { tenant, type: 'session', id },
    relation: { required: 'can_view', held },
    control: { halted: false, suspended: null, revoked: false, training: 'locked' },
    context: { time: new Date().toISOString(), requestId: crypto.randomUUID() },
  });
  log.info({ path: context.req.path, status: allowed ? 200 : 403, tenant, subject }, 'request');
  return allowed ? context.json({ id }) : context.json({ error: 'forbidden' }, 403);
});

const { cert, key } = readTlsFiles(config.tlsDirectory);
const server = createAdaptorServer({ fetch: app.fetch, createServer, serverOptions: { cert, key } });
server.listen(0, '127.0.0.1', () => report((server.address() as AddressInfo).port, () => ({})));
