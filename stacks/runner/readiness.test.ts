import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LiveObject } from './kubernetes-api.ts';
import { readiness } from './readiness.ts';

const metadata = { name: 'x', namespace: 'n', generation: 2 };
const nothing = { read: async () => undefined, serves: async () => false };
const has = (object: object) => ({ ...nothing, read: async () => object as LiveObject });

const condition = (type: string, status: string, more: object = {}) => ({ conditions: [{ type, status, ...more }] });

test('every kind is ready by its own rule', async () => {
  const table: [string, string, object, string][] = [
    [
      'apps/v1',
      'Deployment',
      { spec: { replicas: 2 }, status: { observedGeneration: 1, availableReplicas: 2, updatedReplicas: 2 } },
      'waiting',
    ],
    [
      'apps/v1',
      'Deployment',
      {
        spec: { replicas: 2 },
        status: { observedGeneration: 2, replicas: 3, availableReplicas: 2, updatedReplicas: 2 },
      },
      'waiting',
    ],
    [
      'apps/v1',
      'Deployment',
      {
        spec: { replicas: 2 },
        status: { observedGeneration: 2, replicas: 2, availableReplicas: 2, updatedReplicas: 2 },
      },
      'ready',
    ],
    ['apps/v1', 'Deployment', { spec: { replicas: 0 }, status: { observedGeneration: 2 } }, 'ready'],
    [
      'apps/v1',
      'Deployment',
      {
        spec: {},
        status: { observedGeneration: 2, ...condition('Progressing', 'False', { reason: 'ProgressDeadlineExceeded' }) },
      },
      'failed',
    ],
    [
      'apps/v1',
      'StatefulSet',
      { spec: { replicas: 3 }, status: { observedGeneration: 2, readyReplicas: 2 } },
      'waiting',
    ],
    [
      'apps/v1',
      'StatefulSet',
      {
        spec: { replicas: 3 },
        status: {
          observedGeneration: 2,
          readyReplicas: 3,
          updatedReplicas: 1,
          currentRevision: 'a',
          updateRevision: 'b',
        },
      },
      'waiting',
    ],
    [
      'apps/v1',
      'StatefulSet',
      {
        spec: { replicas: 3 },
        status: { observedGeneration: 2, readyReplicas: 3, currentRevision: 'a', updateRevision: 'a' },
      },
      'ready',
    ],
    [
      'apps/v1',
      'DaemonSet',
      {
        spec: {},
        status: { observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1 },
      },
      'waiting',
    ],
    ['batch/v1', 'Job', { spec: {}, status: {} }, 'waiting'],
    ['batch/v1', 'Job', { spec: {}, status: condition('Complete', 'True') }, 'ready'],
    ['batch/v1', 'Job', { spec: {}, status: condition('Failed', 'True', { message: 'gave up' }) }, 'failed'],
    ['v1', 'Namespace', { status: { phase: 'Terminating' } }, 'waiting'],
    ['v1', 'Pod', { status: { phase: 'Failed' } }, 'failed'],
    ['v1', 'PersistentVolumeClaim', { spec: { storageClassName: 'c' }, status: { phase: 'Bound' } }, 'ready'],
    ['v1', 'PersistentVolumeClaim', { spec: { storageClassName: 'c' }, status: { phase: 'Pending' } }, 'waiting'],
    ['v1', 'Service', { spec: { selector: { app: 'x' } } }, 'waiting'],
    ['v1', 'Service', { spec: {} }, 'ready'],
    ['v1', 'ConfigMap', { data: {} }, 'ready'],
    ['apiextensions.k8s.io/v1', 'CustomResourceDefinition', { status: condition('Established', 'False') }, 'waiting'],
    ['ray.io/v1', 'RayService', { status: condition('Ready', 'False', { message: 'starting' }) }, 'waiting'],
    ['ray.io/v1', 'RayService', { status: { observedGeneration: 1, ...condition('Ready', 'True') } }, 'waiting'],
    ['ray.io/v1', 'RayService', {}, 'ready'],
  ];
  for (const [apiVersion, kind, rest, state] of table) {
    const verdict = await readiness({ apiVersion, kind, metadata, ...rest }, nothing);
    assert.equal(verdict.state, state, `${kind} ${JSON.stringify(rest)}`);
  }
});

test('a claim whose class waits for a consumer is not stuck', async () => {
  const claim = {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata,
    spec: { storageClassName: 'c' },
    status: { phase: 'Pending' },
  };
  assert.equal((await readiness(claim, has({ volumeBindingMode: 'WaitForFirstConsumer' }))).state, 'ready');
  assert.equal((await readiness(claim, has({ volumeBindingMode: 'Immediate' }))).state, 'waiting');
});

test('a Service is ready with the first address behind it', async () => {
  const service = { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: { app: 'x' } } };
  assert.equal((await readiness(service, has({ subsets: [{ addresses: [{ ip: '10.0.0.1' }] }] }))).state, 'ready');
  assert.equal(
    (await readiness(service, has({ subsets: [{ notReadyAddresses: [{ ip: '10.0.0.1' }] }] }))).state,
    'waiting',
  );
});

test('what is being deleted is not ready', async () => {
  const live = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { ...metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
  };
  assert.equal((await readiness(live, nothing)).state, 'waiting');
});

test('a definition is ready when the API server answers for each version that it serves', async () => {
  const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata,
    spec: {
      group: 'ray.io',
      names: { kind: 'RayService' },
      versions: [
        { name: 'v1', served: true },
        { name: 'v1alpha1', served: false },
      ],
    },
    status: condition('Established', 'True'),
  };
  assert.deepEqual(await readiness(definition, nothing), { state: 'waiting', detail: 'version v1 is not served yet' });
  const serves = async (apiVersion: string, kind: string) => apiVersion === 'ray.io/v1' && kind === 'RayService';
  assert.equal((await readiness(definition, { ...nothing, serves })).state, 'ready');
});
