import type { Server } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Stops taking connections and waits for the requests in flight.
 * @param limit milliseconds, after which what is left is cut.
 */
export async function drainServer(server: Server, limit: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // A kept-alive connection that is idle now may still carry a request later: it is told to close by then.
  const sweep = setInterval(() => server.closeIdleConnections(), 100);
  const cut = new AbortController();
  await Promise.race([closed, sleep(limit, undefined, { signal: cut.signal }).catch(() => undefined)]);
  cut.abort();
  clearInterval(sweep);
  server.closeAllConnections();
}
