import { connectionSettings, type Logger, messageOf, type PostgresConfig } from '@somagent/kit';
import { eventChannel, parseEndNotice, parseNotice, type TurnKey } from '@somagent/orchestrator/contract.ts';
import pg from 'pg';

/** Waits for news of one session. */
export interface Subscription {
  /** Resolves true on news since the last call, false after `timeout` milliseconds or when the signal aborts. */
  next(timeout: number, signal: AbortSignal): Promise<boolean>;
  close(): void;
}

const keyOf = (tenant: string, sessionId: string, turnId?: string) =>
  turnId === undefined ? `${tenant}/${sessionId}` : `${tenant}/${sessionId}/${turnId}`;

/**
 * Tells the streams of this pod that a session has new events, over one connection that LISTENs. It carries no event:
 * each stream reads from the table after its own last number, so a lost notification or connection loses nothing.
 */
export class EventHub {
  readonly #config: PostgresConfig;
  readonly #log: Logger;
  readonly #waiters = new Map<string, Set<() => void>>();
  readonly #followers = new Map<string, (payload: string | undefined) => void>();
  #client: pg.Client | undefined;
  #stopped = false;

  constructor(config: PostgresConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  /** Whether notifications arrive at the moment. */
  get connected(): boolean {
    return this.#client !== undefined;
  }

  /** Number of open subscriptions. */
  get size(): number {
    return [...this.#waiters.values()].reduce((sum, waiters) => sum + waiters.size, 0);
  }

  /** Connects, and connects again whenever the connection is lost. */
  async start(): Promise<void> {
    if (this.#stopped) return;
    const client = new pg.Client(connectionSettings(this.#config));
    client.on('error', (error) => this.#log.warn({ reason: error.message }, 'the connection for events was lost'));
    try {
      await client.connect();
      client.on('notification', ({ channel, payload }) => {
        if (channel === eventChannel) this.#announce(payload ?? '');
        else this.#followers.get(channel)?.(payload);
      });
      for (const channel of [eventChannel, ...this.#followers.keys()]) await client.query(`listen ${channel}`);
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'cannot listen for events');
      void client.end().catch(() => undefined);
      this.#startAgain();
      return;
    }
    client.once('end', () => {
      this.#client = undefined;
      this.#startAgain();
    });
    this.#client = client;
    // Whatever was announced while nobody listened.
    for (const key of this.#waiters.keys()) this.#wake(key);
    for (const follow of this.#followers.values()) follow(undefined);
  }

  /**
   * Follows another channel, from the next {@link start} on.
   * @param listener called with each payload, and without one on every new connection: anything may have been missed
   */
  follow(channel: string, listener: (payload: string | undefined) => void): void {
    this.#followers.set(channel, listener);
  }

  #startAgain(): void {
    setTimeout(() => void this.start(), 500).unref();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#client?.end();
  }

  subscribe(tenant: string, sessionId: string): Subscription {
    const key = keyOf(tenant, sessionId);
    const waiters = this.#waiters.get(key) ?? new Set();
    this.#waiters.set(key, waiters);
    let news = false;
    let notify = () => {};
    const wake = () => {
      news = true;
      notify();
    };
    waiters.add(wake);
    return {
      next: async (timeout, signal) => {
        if (!news && !signal.aborted) {
          await new Promise<void>((resolve) => {
            const timer = setTimeout(resolve, timeout);
            notify = () => {
              clearTimeout(timer);
              signal.removeEventListener('abort', notify);
              resolve();
            };
            signal.addEventListener('abort', notify, { once: true });
          });
        }
        const had = news;
        news = false;
        return had;
      },
      close: () => {
        waiters.delete(wake);
        if (waiters.size === 0) this.#waiters.delete(key);
      },
    };
  }

  /**
   * Resolves when the end of a turn is announced, or when the signal aborts. An announcement can be lost with the
   * connection: whoever waits must have another way to learn of it.
   */
  async ended({ tenant, sessionId, turnId }: TurnKey, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const key = keyOf(tenant, sessionId, turnId);
    const waiters = this.#waiters.get(key) ?? new Set();
    this.#waiters.set(key, waiters);
    let wake = () => {};
    await new Promise<void>((resolve) => {
      wake = resolve;
      waiters.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
    signal.removeEventListener('abort', wake);
    waiters.delete(wake);
    if (waiters.size === 0) this.#waiters.delete(key);
  }

  #announce(payload: string): void {
    const end = parseEndNotice(payload);
    if (end !== undefined) this.#wake(keyOf(end.tenant, end.sessionId, end.turnId));
    const notice = parseNotice(payload);
    if (notice === undefined) return;
    this.#wake(keyOf(notice.tenant, notice.sessionId));
  }

  #wake(key: string): void {
    for (const wake of this.#waiters.get(key) ?? []) wake();
  }
}
