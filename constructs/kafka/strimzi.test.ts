/** What is rendered for Strimzi, tried strictly against its genuine CRDs on a real API server. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ApiextensionsV1Api, CustomObjectsApi } from '@kubernetes/client-node';
import { startApiServer, type TestApiServer } from '@somagent/bootstrap/testing/api-server.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { parseAllDocuments } from 'yaml';
import { kafkaOf, type Manifest, TestRegion } from '../testing.ts';

/** Schemas of the operator, kept beside the repository because they are its own. */
const folder = join(import.meta.dirname, '../../../shared/crds/strimzi');
const absent = existsSync(folder) ? false : `the genuine CRDs are not here (${folder}); nothing was validated`;

const definitions = (): Manifest[] =>
  readdirSync(folder)
    .filter((file) => /Crd-kafka(nodepool|topic|user)?\.yaml$/.test(file))
    .flatMap((file) => parseAllDocuments(readFileSync(join(folder, file), 'utf8')).map((document) => document.toJS()));

function resources(): Manifest[] {
  const region = new TestRegion();
  kafkaOf(region, 'kafka', { renderer: 'strimzi', storageClass: 'fast' });
  return region
    .manifests()
    .filter(({ apiVersion }) => apiVersion === 'kafka.strimzi.io/v1')
    .map((manifest) => ({ ...manifest, metadata: { ...manifest.metadata, namespace: 'default' } }));
}

describe('resources for Strimzi', { skip: absent }, () => {
  let server: TestApiServer;
  let objects: CustomObjectsApi;

  before(async () => {
    server = await startApiServer();
    objects = server.admin.makeApiClient(CustomObjectsApi);
    const extensions = server.admin.makeApiClient(ApiextensionsV1Api);
    for (const body of definitions()) {
      // The typed client would drop `x-kubernetes-preserve-unknown-fields`.
      const kind = { group: 'apiextensions.k8s.io', version: 'v1', plural: 'customresourcedefinitions' };
      await objects.createClusterCustomObject({ ...kind, body });
      const { name } = body.metadata;
      await waitFor({ name, address: '', fix: 'read its conditions' }, () => established(extensions, name), {
        seconds: 30,
      });
    }
  });
  after(() => server?.stop());

  async function established(extensions: ApiextensionsV1Api, name: string): Promise<void> {
    const { status } = await extensions.readCustomResourceDefinition({ name });
    const condition = status?.conditions?.find(({ type }) => type === 'Established');
    assert.equal(condition?.status, 'True');
  }

  const create = (body: Manifest): Promise<Manifest> =>
    objects.createNamespacedCustomObject({
      ...{ group: 'kafka.strimzi.io', version: 'v1', namespace: 'default', plural: `${body.kind.toLowerCase()}s` },
      ...{ body, fieldValidation: 'Strict' },
    });

  test('are accepted whole, unknown fields forbidden', async () => {
    const rendered = resources();
    const kinds = rendered.map(({ kind }) => kind).toSorted();
    assert.deepEqual(kinds, ['Kafka', 'KafkaNodePool', 'KafkaTopic', 'KafkaUser']);
    for (const manifest of rendered) {
      const stored: Manifest = await create(manifest);
      assert.partialDeepStrictEqual(stored.spec, manifest.spec, manifest.kind);
    }
  });

  test('are refused as soon as one field is misspelt', async () => {
    for (const manifest of resources()) {
      const misspelt = { ...manifest, spec: { ...manifest.spec, brokerss: 3 } };
      await assert.rejects(create(misspelt), /strict decoding error: unknown field \W+spec\.brokerss/);
    }
  });
});
