import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { normalise, quantity } from './normalise.ts';

test('quantities are written as the API server stores them', () => {
  const table: [unknown, unknown][] = [
    ['1000m', '1'],
    ['0.5', '500m'],
    [1, '1'],
    [0.1, '100m'],
    ['1024Mi', '1Gi'],
    ['1500Mi', '1500Mi'],
    ['1.5Gi', '1536Mi'],
    ['100m', '100m'],
    ['2Gi', '2Gi'],
    ['1000000', '1M'],
    ['0', '0'],
    ['0Mi', '0'],
    ['1e3', '1e3'],
    ['2048', '2048'],
  ];
  for (const [given, stored] of table) assert.equal(quantity(given), stored, String(given));
});

test('a canonical quantity stays as it is', () => {
  const written = fc.tuple(
    fc.integer({ min: 0, max: 1_000_000 }),
    fc.constantFrom('', 'm', 'k', 'M', 'Ki', 'Mi', 'Gi'),
  );
  fc.assert(
    fc.property(written, ([amount, suffix]) => {
      const once = quantity(`${amount}${suffix}`);
      assert.equal(quantity(once), once);
    }),
  );
});

const metadata = { name: 'x', namespace: 'y' };

test('what the server would drop is not sent, what means something stays', () => {
  const pod = normalise({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { ...metadata, labels: {} },
    spec: {
      hostNetwork: false,
      automountServiceAccountToken: false,
      nodeSelector: {},
      tolerations: [],
      volumes: [{ name: 'v', emptyDir: {} }, { name: 'w', emptyDir: { sizeLimit: '1024Mi' } }, undefined],
      containers: [
        {
          name: 'c',
          command: null,
          resources: { limits: { cpu: '1000m' }, requests: {} },
          readinessProbe: { initialDelaySeconds: 0 },
        },
      ],
    },
  });
  assert.deepEqual(pod, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata,
    spec: {
      automountServiceAccountToken: false,
      volumes: [
        { name: 'v', emptyDir: {} },
        { name: 'w', emptyDir: { sizeLimit: '1Gi' } },
      ],
      containers: [{ name: 'c', resources: { limits: { cpu: '1' } }, readinessProbe: {} }],
    },
  });
});

test('contents of users and custom resources are not touched', () => {
  const config = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { limits: '1000m', empty: '' } };
  assert.deepEqual(normalise(config), config);
  const kafka = {
    apiVersion: 'kafka.strimzi.io/v1',
    kind: 'Kafka',
    metadata,
    spec: { resources: { limits: { cpu: '1000m' } }, listeners: [] },
  };
  assert.deepEqual(normalise(kafka), kafka);
});
