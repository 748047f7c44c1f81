import { randomUUID } from 'node:crypto';
import type { Span } from '@somagent/kit';
import type { Context } from 'hono';
import type { Caller } from './caller.ts';
import type { DeclaredRoute } from './route.ts';

/** One request on its way through governance. */
export interface Exchange {
  readonly requestId: string;
  /** Milliseconds since the epoch. */
  readonly receivedAt: number;
  /** Of the monotonic clock, milliseconds. */
  readonly startedAt: number;
  /** Absent until it is found; null when no route is declared for the request. */
  route?: DeclaredRoute | null;
  /** Absent until the credential is verified. */
  caller?: Caller;
  /** Absent while nothing is traced, and until the request is somebody's or refused. */
  span?: Span;
  /** Whether its verdict is recorded. There is exactly one for each request. */
  decided: boolean;
}

/** What a request carries after governance. */
export interface GovernedEnv {
  Variables: {
    exchange: Exchange;
    caller: Caller;
    requestId: string;
    /** Milliseconds since the epoch. */
    receivedAt: number;
  };
}

/** Begins an exchange and puts what handlers use into the context. */
export function beginExchange(context: Context<GovernedEnv>): Exchange {
  const exchange = { requestId: randomUUID(), receivedAt: Date.now(), startedAt: performance.now(), decided: false };
  context.set('exchange', exchange);
  context.set('requestId', exchange.requestId);
  context.set('receivedAt', exchange.receivedAt);
  return exchange;
}
