import { appendEvents } from '@somagent/kit';
import type { Database } from './database.ts';
import type { Memories } from './memories.ts';
import { exportedEvent, type Origin } from './memory-events.ts';
import type { Scope } from './scope.ts';

/** Version of the format. */
const version = 1;
const pageSize = 500;

/**
 * Memories of a scope, line by line: `export` with their number, each `memory`, then `end` with how many came. An
 * export without its last line was cut short. That it happens is recorded before the first line leaves.
 */
export async function beginExport(
  { database, memories }: { readonly database: Database; readonly memories: Memories },
  scope: Scope,
  origin: Origin,
): Promise<AsyncGenerator<string>> {
  const count = await memories.count(scope);
  await appendEvents(database.of(scope.tenant), [exportedEvent(scope, origin, count)]);
  return exportLines(memories, scope, count);
}

async function* exportLines(memories: Memories, scope: Scope, count: number): AsyncGenerator<string> {
  const { tenant, filter } = scope;
  yield line({ kind: 'export', version, tenant, owner: filter.owner ?? null, count, at: new Date().toISOString() });
  let after: string | undefined;
  let sent = 0;
  for (;;) {
    const page = await memories.page(scope, after, pageSize);
    for (const memory of page) yield line({ kind: 'memory', memory });
    sent += page.length;
    after = page.at(-1)?.id;
    if (page.length < pageSize) break;
  }
  yield line({ kind: 'end', sent });
}

const line = (content: object): string => `${JSON.stringify(content)}\n`;
