import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ContainerStatus, type Pod, podReason } from './pods.ts';

function pod(status: Partial<Pod['status']>): Pod {
  return { metadata: { name: 'p', namespace: 'n' }, spec: { containers: [] }, status: { phase: 'Pending', ...status } };
}

function container(state: ContainerStatus['state'], rest: Partial<ContainerStatus> = {}): ContainerStatus {
  return { name: 'main', image: 'localhost:5000/somagent/gateway:1', ready: false, restartCount: 3, state, ...rest };
}

test('a pod that finds no node says what it lacks', () => {
  const message = '0/1 nodes are available: 1 Insufficient memory.';
  const reason = podReason(pod({ conditions: [{ type: 'PodScheduled', status: 'False', message }] }));
  assert.equal(reason.cause, `can't be scheduled: ${message}`);
  assert.match(reason.fix, /lower the requests/);
});

test('an image of ours that is absent is to be built, another is to be checked', () => {
  const waiting = { waiting: { reason: 'ImagePullBackOff', message: 'not found' } };
  const ours = podReason(pod({ containerStatuses: [container(waiting)] }));
  assert.equal(ours.cause, "image localhost:5000/somagent/gateway:1 can't be pulled (ImagePullBackOff): not found");
  assert.match(ours.fix, /make images/);
  const other = podReason(pod({ containerStatuses: [container(waiting, { image: 'example.org/x:1' })] }));
  assert.match(other.fix, /registry of the environment/);
});

test('a crash loop gives its exit code and asks for the log; out of memory asks for a higher limit', () => {
  const waiting = { waiting: { reason: 'CrashLoopBackOff' } };
  const ended = (reason: string, exitCode: number) => ({ lastState: { terminated: { reason, exitCode } } });
  const crash = podReason(pod({ containerStatuses: [container(waiting, ended('Error', 3))] }));
  assert.equal(crash.needs, 'log');
  assert.match(crash.cause, /main ended with exit code 3, 3 restarts/);
  const memory = podReason(pod({ initContainerStatuses: [container(waiting, ended('OOMKilled', 137))] }));
  assert.match(memory.cause, /used more memory than its limit/);
  assert.match(memory.fix, /raise its memory limit/);
});

test('a container that runs unready points at its probe; one that waits for another container is not blamed', () => {
  const reason = podReason(
    pod({
      initContainerStatuses: [container({ waiting: { reason: 'PodInitializing' } })],
      containerStatuses: [container({ running: {} })],
    }),
  );
  assert.equal(reason.needs, 'events');
  assert.match(reason.cause, /main runs but its readiness probe fails/);
});
