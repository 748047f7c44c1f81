/** The governed server of the benchmark: the packages of the platform, a handler that does nothing. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createGovernedApp,
  KafkaVerdictSink,
  openApiRoute,
  PostgresQuota,
  Problem,
  serveGoverned,
  TokenVerifier,
} from '@somagent/governance';
import {
  appendEvents,
  ControlState,
  createLogger,
  createPool,
  fetchTrusting,
  KafkaProducer,
  TenantDatabase,
} from '@somagent/kit';
import { FolderSource, PolicyEngine } from '@somagent/policy';
import { locateModel, OpenFga, RelationChecker } from '@somagent/relations';
import { createLocalJWKSet } from 'jose';
import { report } from './reporting.ts';
import { chat, readSession } from './route.ts';
import { rules, type ServerConfig } from './world.ts';

const config = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as ServerConfig;
const model = { url: process.argv[3] ?? '', key: process.argv[4] ?? '' };
const askModel = fetchTrusting(join(config.tlsDirectory, 'ca.crt'));
// Lines as in production; where they go is not measured.
const log = createLogger({ service: 'gateway' });

const policy = new PolicyEngine({
  source: new FolderSource(config.policyFolder),
  publicKeyFile: config.policyKeyFile,
  log,
});
const control = new ControlState({ ...config.identity, log });
const client = new OpenFga(config.openfga);
const kafka = new KafkaProducer(config.kafka, { clientId: 'gateway' });
const database = new TenantDatabase(createPool(config.postgres, log));
const verdicts = new KafkaVerdictSink({
  producer: kafka,
  spill: (events) => appendEvents(database.untenanted, events),
  log,
});
const minute = (name: string, per: 'tenant' | 'subject') => ({ name, per, windowSeconds: 60, allowed: 10_000_000 });
const app = createGovernedApp({
  service: 'gateway',
  title: 'Benchmark',
  routes: { readSession, chat, getOpenApi: openApiRoute },
  handlers: {
    readSession: (context) => context.json({ id: context.req.valid('param').id }, 200),
    chat: async (context) => {
      const answer = await askModel(`${model.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${model.key}`, 'content-type': 'application/json' },
        body: JSON.stringify(context.req.valid('json')),
      });
      if (!answer.ok) throw new Problem('unavailable', `the model answered ${answer.status}`);
      return context.json((await answer.json()) as Record<string, unknown>, 200);
    },
  },
  authentication: { tokens: new TokenVerifier({ keys: createLocalJWKSet(config.jwks), rules }) },
  control,
  policy,
  relations: new RelationChecker({ client, locate: () => locateModel(client) }),
  quota: new PostgresQuota({ database, limits: [minute('subject', 'subject'), minute('tenant', 'tenant')], log }),
  verdicts,
  log,
});

control.start();
await policy.start();
while (!control.ready) await new Promise(setImmediate);
const server = await serveGoverned({ app, port: 0, host: '127.0.0.1', tlsDirectory: config.tlsDirectory, log });
report(server.port, () => ({ ...verdicts.state }));
