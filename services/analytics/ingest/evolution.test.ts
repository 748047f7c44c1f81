import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { SchemaRegistry } from '@somagent/bootstrap/kafka/registry.ts';
import { registryToken } from '@somagent/bootstrap/kafka/schemas.ts';
import { startSchemaRegistry, type TestSchemaRegistry } from '@somagent/bootstrap/testing/schema-registry.ts';
import { planOf } from '@somagent/events';
import { Evolution, SchemasAway } from './evolution.ts';
import { registrySchemas } from './registry.ts';

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

/** As the service is configured. */
const source = (url = server.url, keyFile = server.readerKeyFile) =>
  registrySchemas({
    SCHEMA_REGISTRY_URL: url,
    SCHEMA_REGISTRY_CA_FILE: server.caFile,
    SCHEMA_REGISTRY_KEY_FILE: keyFile,
  });
const evolution = () => new Evolution(source());
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
  const away = new Evolution(source('https://127.0.0.1:1'));
  await assert.rejects(
    async () => away.judge('usage.tokens', 'tokens.used', versions + 1),
    (error: unknown) => {
      assert.ok(error instanceof SchemasAway);
      assert.match(error.message, /the events wait in Kafka$/);
      return true;
    },
  );
});

test('a service whose key the registry does not know decides nothing', async () => {
  const stranger = new Evolution(source(server.url, server.keyFile));
  await assert.rejects(
    async () => stranger.judge('usage.tokens', 'tokens.used', versions + 1),
    /HTTP 401.*the events wait/,
  );
});
