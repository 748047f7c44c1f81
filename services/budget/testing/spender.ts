/** A process that spends budgets as a gateway does, as fast as it can; its parent counts, and may kill it. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger, TenantDatabase } from '@somagent/kit';
import pg from 'pg';
import { BudgetBatches } from '../batches.ts';
import type { BudgetRequest } from '../budget.ts';
import { BudgetLeases } from '../leases.ts';

/** What it is told. */
export interface SpenderOrder {
  readonly connection: pg.PoolConfig;
  readonly tenant: string;
  /** Whose budgets, beside the tenant's. */
  readonly team: string | null;
  /** The most of one request. */
  readonly most: number;
  readonly requests: number;
  readonly clients: number;
}

/** What it tells: after each request what that has used, and at the end how many there were of which kind. */
export interface SpenderNews {
  readonly used?: number;
  readonly end?: { readonly leased: number; readonly exact: number; readonly refused: number };
}

const tell = (news: SpenderNews) => process.send?.(news);

async function spend({ connection, tenant, team, most, requests, clients }: SpenderOrder): Promise<void> {
  const database = new TenantDatabase<unknown>(new pg.Pool({ ...connection, max: 4 }));
  const exact = new BudgetBatches({ database, linger: 1 });
  // The worst case: it believes to hear of recalls, and never does.
  const log = createLogger({ service: 'spender', level: 'silent' });
  const leases = new BudgetLeases({ database, exact, log, hears: () => true, seconds: 1 });
  const counts = { leased: 0, exact: 0, refused: 0 };
  const one = async () => {
    const tokens = 1 + Math.floor(Math.random() * most);
    const ids = { team, persona: null, sessionId: null, requestId: randomUUID() };
    const request: BudgetRequest = { tenant, ...ids, tokens, costMicros: 0 };
    const options = () => ({ seconds: 2 });
    const drawn = leases.draw(request, options);
    const answer = await (drawn ?? exact.reserve(request, options()));
    counts[answer.granted ? (drawn === undefined ? 'exact' : 'leased') : 'refused'] += 1;
    if (!answer.granted) return;
    await sleep(Math.random() * 3);
    const used = Math.floor(tokens * Math.random());
    await exact.settle(request, { tokens: used, costMicros: 0 }, []);
    tell({ used });
  };
  let left = requests;
  const client = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: clients }, client));
  await leases.giveBack();
  await database.destroy();
  tell({ end: counts });
}

process.once('message', (order: SpenderOrder) => void spend(order).then(() => process.disconnect()));
