/**
 * Records histories of session workflows for the replay test: `node services/orchestrator/record-histories.ts
 * <version>`, with the variables TEMPORAL_* of a platform whose worker runs. Files of released versions are never
 * recorded again: they are the sessions that a new version has to carry on.
 */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { readConfig, temporalVariables } from '@somagent/kit';
import { type Client, WithStartWorkflowOperation } from '@temporalio/client';
import temporalProto from '@temporalio/proto';
import { z } from 'zod';
import { connectClient } from './client.ts';
import { messages, type SessionInput, sessionWorkflow, type TurnInput, workflowIdOf } from './contract.ts';

const { History } = temporalProto.temporal.api.history.v1;
const config = readConfig(z.object(temporalVariables));
const turn = (prompt: string): TurnInput => ({ turnId: randomUUID(), prompt, receivedAt: Date.now() });

async function start(client: Client, limits: Partial<SessionInput>, first: TurnInput): Promise<string> {
  const input = { tenant: 'recorder', sessionId: randomUUID(), subject: 'recorder', idleTimeout: 3_600_000, ...limits };
  const workflowId = workflowIdOf(input.tenant, input.sessionId);
  await client.workflow.executeUpdateWithStart(messages.turn, {
    args: [first],
    updateId: first.turnId,
    startWorkflowOperation: new WithStartWorkflowOperation<(input: SessionInput) => Promise<unknown>>(sessionWorkflow, {
      workflowId,
      taskQueue: config.TASK_QUEUE,
      args: [input],
      workflowIdConflictPolicy: 'FAIL',
    }),
  });
  return workflowId;
}

type Scenario = (client: Client) => Promise<{ readonly workflowId: string; readonly runId?: string }>;

const scenarios: Readonly<Record<string, Scenario>> = {
  /** Turns in a row and at once, a cancelled one, closed by the client. */
  closed: async (client) => {
    const workflowId = await start(client, { persona: 'You are brief.' }, turn('What is a session?'));
    const handle = client.workflow.getHandle(workflowId);
    const ask = (input: TurnInput) => handle.executeUpdate(messages.turn, { args: [input], updateId: input.turnId });
    await Promise.all([ask(turn('What is a region?')), ask(turn('What is a tenant?'))]);
    const long = turn('Tell a very long story');
    const told = ask(long);
    await handle.executeUpdate(messages.cancelTurn, { args: [{ turnId: long.turnId }] });
    await told;
    await handle.executeUpdate(messages.close, { args: [] });
    await handle.result();
    return { workflowId };
  },
  /** Closed by itself. */
  idle: async (client) => {
    const workflowId = await start(client, { idleTimeout: 2000 }, turn('What is a session?'));
    await client.workflow.getHandle(workflowId).result();
    return { workflowId };
  },
  /** The first run of a session that continued as new. */
  continued: async (client) => {
    const workflowId = await start(client, { historyLimit: 30 }, turn('What is a session?'));
    const { runId } = await client.workflow.getHandle(workflowId).describe();
    const handle = client.workflow.getHandle(workflowId);
    for (let index = 0; index < 4; index += 1) {
      const next = turn(`Question ${index}`);
      await handle.executeUpdate(messages.turn, { args: [next], updateId: next.turnId });
    }
    await sleep(500);
    await handle.executeUpdate(messages.close, { args: [] });
    return { workflowId, runId };
  },
};

const [version] = process.argv.slice(2);
if (version === undefined) {
  console.error('Usage: node services/orchestrator/record-histories.ts <version, e.g. 0.1.0>');
  process.exit(2);
}
const client = await connectClient(config);
for (const [name, scenario] of Object.entries(scenarios)) {
  const { workflowId, runId } = await scenario(client);
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
  const file = new URL(`./histories/${version}-${name}.json`, import.meta.url);
  await writeFile(file, `${JSON.stringify(History.fromObject(history).toJSON(), null, 1)}\n`);
  console.log(`${file.pathname}: ${history.events?.length} events`);
}
await client.connection.close();
