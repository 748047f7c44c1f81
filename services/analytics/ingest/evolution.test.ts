import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { SchemaRegistry } from '@somagent/bootstrap/kafka/registry.ts';
import { registryToken } from '@somagent/bootstrap/kafka/schemas.ts';
import { startSchemaRegistry, type TestSchemaRegistry } from '@somagent/bootstrap/testing/schema-registry.ts';
import { planOf } from '@somagent/events';
import { fetchTrusting } from '@somagent/kit';
import { Evolution, registrySchemas, SchemasAway } from './evolution.ts';

const subject = 'usage.tokens-tokens.used';
// biome-ignore lint/suspicious/noExplicitAny: a JSON Schema is changed in places that its type does not name
type AnySchema = any;
let server: TestSchemaRegistry;
let versions = 0;
before(async () => {
  server = await startSchemaRegistry();
  const writer = new SchemaRegistry(server.url, () => registryToken(server.key['private.pem']));
  const [known] = planOf().schemas.filter((each) => each.subject === subject);
  assert.ok(known, subject);
  versions = known.versions.length;
  const change = (edit: (data: AnySchema) => void): AnySchema => {
    const schema = structuredClone(known.versions.at(-1)) as AnySchema;
    edit(schema.properties.data);
    return schema;
  };
  const next = [
    change(({ properties }) => {
      properties.region = { type: 'string' };
    }),
    // The registry admits it, for its readers can still read what is old; this reader can't read what is new.
    change(({ properties }) => {
      properties.region = { type: 'string' };
      properties.promptTokens = { anyOf: [properties.promptTokens, { type: 'string' }] };
    }),
  ];
  for (const schema of [...known.versions, ...next]) await writer.register(subject, schema);
});
after(() => server?.stop());

const evolution = () => new Evolution(registrySchemas(server.url, fetchTrusting(server.caFile)));
const judge = (version: number) => evolution().judge('usage.tokens', 'tokens.used', version);

test('versions that this service knows are read without a question', async () => {
  const away = new Evolution({ schema: () => Promise.reject(new Error('nobody is there')) });
  for (let version = 1; version <= versions; version += 1) {
    assert.equal(await away.judge('usage.tokens', 'tokens.used', version), null);
  }
});

test('a newer version with one more field is read', async () => {
  assert.equal(await judge(versions + 1), null);
});

test('a newer version that may carry what this service cannot read is named with the reason', async () => {
  assert.match((await judge(versions + 2)) ?? '', /^version 4 of usage\.tokens-tokens\.used: .*promptTokens: type is/);
});

test('a version that nobody registered is named, and asked for again', async () => {
  assert.equal(await judge(versions + 3), `version ${versions + 3} of ${subject} is not in the schema registry`);
});

test('while the registry is away nothing is decided', async () => {
  const away = new Evolution(registrySchemas('https://127.0.0.1:1', fetchTrusting(server.caFile)));
  await assert.rejects(away.judge('usage.tokens', 'tokens.used', versions + 1), (error: unknown) => {
    assert.ok(error instanceof SchemasAway);
    assert.match(error.message, /the events wait in Kafka$/);
    return true;
  });
});
