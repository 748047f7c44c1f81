import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { isIgnored } from '../tag.ts';
import { stagePython } from './python.ts';
import type { Stage } from './stage.ts';

/** The engine's library and the front that serves it. */
export async function stageClickHouse(stage: Stage): Promise<void> {
  await stagePython(stage);
  const filter = (path: string): boolean => !isIgnored(path.slice(path.lastIndexOf('/') + 1));
  const from = join(stage.repository, 'services/clickhouse-front/clickhouse_front');
  cpSync(from, join(stage.folder, 'app/clickhouse_front'), { recursive: true, filter });
}
