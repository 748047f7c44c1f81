import { readFileSync } from 'node:fs';
import { createLogger, createPool, postgresVariables, readConfig, TenantDatabase } from '@somagent/kit';
import { z } from 'zod';
import { AuditLog } from '../log/audit-log.ts';
import type { Database } from '../log/database.ts';
import { leafOfMessage } from '../log/leaf.ts';

// Appends the lines of a file from where the log itself says that it is, in a process that a test can kill.
const [file = '', size = '', replay = ''] = process.argv.slice(2);
const config = readConfig(z.object(postgresVariables));
const log = new AuditLog(new TenantDatabase<Database>(createPool(config, createLogger({ service: 'audit-append' }))));
const values = readFileSync(file, 'utf8').trimEnd().split('\n');
const topic = 'verdict.decisions';
const { offsets } = await log.position();
const first = Math.max(0, Number(offsets[`${topic}/0`] ?? 0) - Number(replay));
for (let from = first; from < values.length; from += Number(size)) {
  const some = values.slice(from, from + Number(size));
  const messages = some.map((value, place) =>
    leafOfMessage({ topic, partition: 0, offset: BigInt(from + place), value: Buffer.from(value) }),
  );
  await log.append(messages, { [`${topic}/0`]: String(from + some.length) });
}
process.exit(0);
