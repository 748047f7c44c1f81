import { join } from 'node:path';
import { Connection, isGrpcServiceError } from '@temporalio/client';
import { msToTs, tsToMs } from '@temporalio/common/lib/time.js';
import { z } from 'zod';
import { log } from '../log.ts';
import { type Environment, readPem, readSettings, waitSettings } from '../settings.ts';
import { waitFor } from '../wait.ts';

const settings = z.object({
  TEMPORAL_ADDRESS: z.string().min(1),
  TEMPORAL_NAMESPACE: z.string().min(1).default('somagent'),
  TEMPORAL_TLS_DIR: z.string().default('/secrets/temporal-client'),
  TEMPORAL_SERVER_NAME: z.string().optional(),
  RETENTION_DAYS: z.coerce.number().int().positive().default(30),
  ...waitSettings,
});

const dayMs = 24 * 3600 * 1000;
const grpc = { invalidArgument: 3, notFound: 5, alreadyExists: 6, permissionDenied: 7, unauthenticated: 16 } as const;
const finalCodes = new Set<number>([grpc.invalidArgument, grpc.permissionDenied, grpc.unauthenticated]);
const description = 'Agent sessions of SomaGent';

type Outcome = 'created' | 'updated' | 'unchanged';

/** Registers the Temporal namespace, or repairs its retention. */
export async function runTemporalNamespace(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const frontend = {
    name: 'the Temporal frontend',
    address: values.TEMPORAL_ADDRESS,
    fix: 'look at the Temporal frontend pod and its log, the NetworkPolicy, and the Secret temporal-client-tls',
  };
  const attempt = () => connectAndEnsure(values);
  const outcome = await waitFor(frontend, attempt, {
    seconds: values.WAIT_SECONDS,
    isFinal: (error) => isGrpcServiceError(error) && finalCodes.has(error.code),
  });
  log.info('namespace done', { namespace: values.TEMPORAL_NAMESPACE, retentionDays: values.RETENTION_DAYS, outcome });
}

type Values = z.output<typeof settings>;

async function connectAndEnsure(values: Values): Promise<Outcome> {
  const pem = async (file: string) => Buffer.from(await readPem(join(values.TEMPORAL_TLS_DIR, file)));
  const [ca, crt, key] = await Promise.all([pem('ca.crt'), pem('tls.crt'), pem('tls.key')]);
  const connection = await Connection.connect({
    address: values.TEMPORAL_ADDRESS,
    connectTimeout: 5000,
    tls: {
      serverRootCACertificate: ca,
      clientCertPair: { crt, key },
      ...(values.TEMPORAL_SERVER_NAME === undefined ? {} : { serverNameOverride: values.TEMPORAL_SERVER_NAME }),
    },
  });
  try {
    return await ensureNamespace(connection, values);
  } finally {
    await connection.close();
  }
}

async function ensureNamespace(connection: Connection, values: Values): Promise<Outcome> {
  const namespace = values.TEMPORAL_NAMESPACE;
  const retention = values.RETENTION_DAYS * dayMs;
  const current = await readRetention(connection, namespace);
  if (current === retention) return 'unchanged';
  if (current !== undefined) {
    await connection.workflowService.updateNamespace({
      namespace,
      config: { workflowExecutionRetentionTtl: msToTs(retention) },
    });
    return 'updated';
  }
  try {
    await connection.workflowService.registerNamespace({
      namespace,
      description,
      workflowExecutionRetentionPeriod: msToTs(retention),
    });
  } catch (error) {
    // Another run was faster; the next look decides whether its retention is right.
    if (!isGrpcServiceError(error) || error.code !== grpc.alreadyExists) throw error;
    return 'unchanged';
  }
  return 'created';
}

/** Retention in milliseconds, or undefined when the namespace is absent. */
async function readRetention(connection: Connection, namespace: string): Promise<number | undefined> {
  try {
    const { config } = await connection.workflowService.describeNamespace({ namespace });
    return tsToMs(config?.workflowExecutionRetentionTtl ?? undefined);
  } catch (error) {
    if (isGrpcServiceError(error) && error.code === grpc.notFound) return undefined;
    throw error;
  }
}
