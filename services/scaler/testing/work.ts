import { proxyActivities } from '@temporalio/workflow';

const { turn } = proxyActivities<{ turn(): Promise<void> }>({ startToCloseTimeout: '1 minute' });

/** A session of one turn, for tests of scaling. */
export async function session(): Promise<void> {
  await turn();
}
