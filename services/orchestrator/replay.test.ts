import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import temporalProto from '@temporalio/proto';
import { bundleWorkflowCode, DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';
import { workflowModules } from './workflow-source.ts';

const { History } = temporalProto.temporal.api.history.v1;
const histories = new URL('./histories/', import.meta.url);
const files = readdirSync(histories).filter((name) => name.endsWith('.json'));
const load = (name: string) => JSON.parse(readFileSync(new URL(name, histories), 'utf8')) as RecordedHistory;

interface RecordedEvent {
  readonly eventType: string;
  readonly activityTaskScheduledEventAttributes?: { activityType: { name: string } };
}

interface RecordedHistory {
  readonly events: RecordedEvent[];
}

let code = '';
before(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const logger = new DefaultLogger('ERROR');
  ({ code } = await bundleWorkflowCode({ ...workflowModules(import.meta.filename), logger }));
});

const replay = (history: RecordedHistory) =>
  Worker.runReplayHistory({ workflowBundle: { code } }, History.fromObject(history), 'session/recorder/replay');

test('histories of all three ends of a run are recorded', () => {
  for (const end of ['closed', 'idle', 'continued'])
    assert.ok(
      files.some((name) => name.endsWith(`-${end}.json`)),
      end,
    );
});

for (const name of files) {
  test(`${name} replays on the workflow as it is now`, async () => replay(load(name)));
}

test('a history that the workflow would not make is refused: the replay above proves something', async () => {
  const history = load(files[0] ?? '');
  for (const event of history.events) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled !== undefined) scheduled.activityType.name = 'somethingElse';
  }
  await assert.rejects(replay(history), DeterminismViolationError);
});
