import { Problem } from '@somagent/governance';
import type { Context } from 'hono';
import { streamSSE } from 'hono/streaming';
import type { ControlFeed } from './control-feed.ts';
import { problems } from './problems.ts';

/** Time between two heartbeats, milliseconds. */
export const heartbeat = 500;

/**
 * Answers with the control state and each change of it, as server-sent events: `snapshot` with the whole state,
 * `heartbeat` while the database confirms that it is current. A slow reader is sent the newest state, not each one.
 * @param draining aborts when the pod shuts down: the client goes to another replica
 * @throws Problem feed-stale, so that the client tries another replica.
 */
export function controlStream(context: Context, feed: ControlFeed, draining: AbortSignal): Response {
  if (!feed.fresh) {
    throw new Problem(problems.feedStale, 'the database does not confirm it: try again', { 'retry-after': '1' });
  }
  const response = streamSSE(context, async (stream) => {
    const gone = new AbortController();
    stream.onAbort(() => gone.abort());
    const signal = AbortSignal.any([gone.signal, draining]);
    let sent = 0;
    while (!signal.aborted) {
      const { snapshot } = feed.view;
      if (snapshot.revision !== sent) {
        await stream.writeSSE({ event: 'snapshot', id: String(snapshot.revision), data: JSON.stringify(snapshot) });
        sent = snapshot.revision;
      } else if (feed.fresh) {
        await stream.writeSSE({ event: 'heartbeat', data: '{}' });
      }
      if (feed.view.snapshot.revision === sent) await feed.next(heartbeat, signal);
    }
  });
  response.headers.set('x-accel-buffering', 'no');
  return response;
}
