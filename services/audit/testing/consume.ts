import { createLogger, createPool, kafkaVariables, postgresVariables, readConfig, TenantDatabase } from '@somagent/kit';
import { z } from 'zod';
import { AuditConsumer } from '../consumer/consumer.ts';
import { AuditLog } from '../log/audit-log.ts';
import type { Database } from '../log/database.ts';

// The consumer alone, in a process that a test can kill.
const config = readConfig(z.object({ ...postgresVariables, ...kafkaVariables }));
const log = createLogger({ service: 'audit-consume', level: 'error' });
const auditLog = new AuditLog(new TenantDatabase<Database>(createPool(config, log)));
new AuditConsumer({ kafka: config, auditLog, log, batch: Number(process.argv[2]) }).start();
