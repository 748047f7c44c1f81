import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Evidence, explain, explainRefusal, inOneLine } from './explain.ts';
import { KubernetesApiError } from './kubernetes-api.ts';

/** Objects, pods, logs and events of a real cluster in the moment of the fault. */
function recorded(name: string): Evidence {
  return JSON.parse(readFileSync(join(import.meta.dirname, 'recorded', `${name}.json`), 'utf8')) as Evidence;
}

test('an image that no registry has', () => {
  const { kind, cause, fix, hopeless } = explain(recorded('image-missing'));
  assert.equal(kind, 'image-missing');
  assert.match(cause, /^image localhost:5000\/somagent\/none:1 can't be pulled: .*not found$/);
  assert.match(fix, /make images/);
  assert.equal(hopeless, true);
});

test('a pod that fits on no node', () => {
  const { kind, object, cause, fix } = explain(recorded('unschedulable'));
  assert.equal(kind, 'unschedulable');
  assert.equal(object, 'apps/v1 Deployment tiny/pause');
  assert.match(cause, /fits on no node: 0\/1 nodes are available: 1 Insufficient cpu/);
  assert.equal(fix, 'lower the cpu requests (somagent:size), free cpu on the nodes, or add a node');
});

test('a container that ends again and again, with its last lines', () => {
  const evidence = recorded('crash-loop');
  const { kind, cause } = explain(evidence);
  assert.equal(kind, 'crash-loop');
  assert.match(
    cause,
    /container p of pod pause-\S+ ended with exit code 2, \d restarts; its last lines:\n.*Show version/s,
  );
  assert.match(inOneLine(cause), /restarts: Show version$/);
});

test('a server that it needs does not answer', () => {
  const evidence = withLog(recorded('crash-loop'), 'Error: connect ECONNREFUSED postgres.local-data.svc:5432');
  const { kind, cause } = explain({ ...evidence, emptyServices: ['postgres.local-data'] });
  assert.equal(kind, 'dependency-down');
  assert.match(cause, /can't reach postgres\.local-data; Service postgres\.local-data has no ready pod/);
});

function withLog(evidence: Evidence, log: string): Evidence {
  return { ...evidence, pods: evidence.pods.map(({ pod }) => ({ pod, logs: { p: log } })) };
}

const reference = { apiVersion: 'kafka.strimzi.io/v1', kind: 'Kafka', metadata: { name: 'k', namespace: 'n' } };

test('what the API server refuses is explained by its reason', () => {
  const table: [KubernetesApiError, string, RegExp][] = [
    [new KubernetesApiError(404, 'KindAbsent', 'x'), 'kind-absent', /no kind Kafka in kafka\.strimzi\.io\/v1/],
    [
      new KubernetesApiError(0, 'Unreachable', 'https://localhost:6443/ does not answer'),
      'unreachable',
      /does not answer/,
    ],
    [
      new KubernetesApiError(403, 'Forbidden', 'pods "p" is forbidden: exceeded quota: plane'),
      'quota',
      /exceeded quota/,
    ],
    [
      new KubernetesApiError(
        500,
        'InternalError',
        'Internal error occurred: failed calling webhook "v.example.com": x',
      ),
      'webhook',
      /webhook v\.example\.com/,
    ],
    [
      new KubernetesApiError(422, 'Invalid', 'spec.selector: Invalid value: field is immutable'),
      'immutable',
      /immutable/,
    ],
    [
      new KubernetesApiError(409, 'Conflict', 'x', [{ field: '.spec.replicas', message: 'conflict with "argocd"' }]),
      'conflict',
      /\.spec\.replicas \(conflict with "argocd"\)/,
    ],
    [new KubernetesApiError(403, 'Forbidden', 'violates PodSecurity "restricted"'), 'pod-security', /violates/],
    [
      new KubernetesApiError(400, 'BadRequest', 'strict decoding error: unknown field "spec.x"'),
      'refused',
      /unknown field "spec\.x"/,
    ],
  ];
  for (const [error, kind, cause] of table) {
    const explanation = explainRefusal(reference, error);
    assert.equal(explanation.kind, kind);
    assert.match(explanation.cause, cause);
    assert.equal(explanation.object, 'kafka.strimzi.io/v1 Kafka n/k');
  }
});
