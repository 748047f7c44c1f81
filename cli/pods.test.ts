import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { V1ContainerStatus, V1Pod, V1PodStatus } from '@kubernetes/client-node';
import { choosePods } from './logs.ts';
import { fixOf, summarisePod } from './pods.ts';
import { formatPods } from './status.ts';

const container = (part: Partial<V1ContainerStatus>): V1ContainerStatus => ({
  name: 'main',
  image: 'i',
  imageID: 'i',
  ready: false,
  restartCount: 0,
  ...part,
});
const pod = (name: string, status: V1PodStatus, labels: Record<string, string> = {}): V1Pod => ({
  metadata: { name, namespace: 'local-services', labels },
  status,
});

describe('summarisePod', () => {
  const cases: readonly (readonly [string, V1PodStatus, string, boolean, string])[] = [
    ['runs', { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }, 'ready', true, ''],
    ['is done', { phase: 'Succeeded' }, 'done', true, ''],
    [
      'has no place',
      { conditions: [{ type: 'PodScheduled', status: 'False', message: '0/1 nodes: Insufficient cpu' }] },
      'unschedulable',
      false,
      '0/1 nodes: Insufficient cpu',
    ],
    [
      'has no image',
      { containerStatuses: [container({ state: { waiting: { reason: 'ImagePullBackOff', message: 'not found' } } })] },
      'ImagePullBackOff',
      false,
      'not found',
    ],
    [
      'crashes',
      {
        containerStatuses: [
          container({
            state: { waiting: { reason: 'CrashLoopBackOff' } },
            lastState: { terminated: { exitCode: 137, reason: 'OOMKilled' } },
          }),
        ],
      },
      'CrashLoopBackOff',
      false,
      'last ended with 137 (OOMKilled)',
    ],
    ['is not ready', { phase: 'Running', containerStatuses: [container({})] }, 'not ready', false, 'probe of main'],
  ];
  for (const [what, status, state, healthy, detail] of cases) {
    it(`sees that a pod ${what}`, () => {
      const summary = summarisePod(pod('gateway-1', status));
      assert.deepEqual([summary.state, summary.healthy, summary.detail], [state, healthy, detail]);
    });
  }

  it('names cause and fix below the table', () => {
    const waiting = { waiting: { reason: 'ErrImagePull', message: 'not found' } };
    const summary = summarisePod(
      pod('gateway-1', { containerStatuses: [container({ state: waiting, restartCount: 2 })] }),
    );
    assert.equal(fixOf(summary), 'build and push the image: make images');
    assert.match(
      formatPods([summary]),
      /local-services {2}gateway-1 {2}2 +ErrImagePull\n\nlocal-services\/gateway-1: ErrImagePull: not found\n {2}fix: /,
    );
  });
});

describe('choosePods', () => {
  const gateway = pod('gateway-7d9f-x', {}, { 'app.kubernetes.io/name': 'gateway' });
  const other = pod('gatekeeper-1', {}, {});
  const all = [gateway, other];

  it('means a label, a name or its beginning up to a hyphen', () => {
    assert.deepEqual(choosePods(all, 'gateway', undefined), [gateway]);
    assert.deepEqual(choosePods(all, 'gatekeeper-1', undefined), [other]);
    assert.deepEqual(choosePods(all, 'gate', undefined), []);
    assert.deepEqual(choosePods(all, 'gateway', 'elsewhere'), []);
  });
});
