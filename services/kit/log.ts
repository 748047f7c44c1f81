import { AsyncLocalStorage } from 'node:async_hooks';
import { context, trace } from '@opentelemetry/api';
import { type DestinationStream, type Logger, pino } from 'pino';
import { contextOf, isTracing } from './tracing.ts';

export type { Logger };

/** Names of fields whose value never reaches a log, at any of the two depths where they occur. */
const secretFields = ['authorization', 'cookie', 'password', 'token', 'apiKey', 'access_token', 'client_secret'];
const redacted = secretFields.flatMap((field) => [field, `*.${field}`, `*.*.${field}`, `*.headers.${field}`]);

/** For whom work is done. */
interface OnBehalf {
  readonly tenant: string;
  readonly requestId?: string;
}

const current = new AsyncLocalStorage<OnBehalf>();

/**
 * Runs work for a tenant: every line that it logs names the tenant, and the request where there is one, unless the line
 * itself does; every span of it is the tenant's.
 * @param requestId @default that of the work around
 */
export function asTenant<Result>(
  tenant: string,
  work: () => Result,
  requestId = current.getStore()?.requestId,
): Result {
  const known = requestId === undefined ? { tenant } : { tenant, requestId };
  return current.run(known, isTracing() ? () => context.with(contextOf(tenant), work) : work);
}

/** In lines that concern no tenant. No tenant can have this name as its own: it is reserved. */
const noTenant = 'platform';

/** Options of {@link createLogger}. */
export interface LoggerOptions {
  /** Name of the service, in every line. */
  readonly service: string;
  /** @default LOG_LEVEL of the environment, or 'info' */
  readonly level?: string;
  /** Where lines go. @default standard output */
  readonly destination?: DestinationStream;
}

/** Lines go out together, after 100 ms at the latest; on exit the rest is written before the process ends. */
const batched = { sync: false, minLength: 4096, periodicFlush: 100 } as const;

/** A logger of JSON lines with ISO time, each with a tenant or `platform`, and the request and the trace that it was written in; fields that carry credentials are replaced by `[redacted]`. */
export function createLogger(options: LoggerOptions): Logger {
  const settings = {
    level: options.level ?? process.env.LOG_LEVEL ?? 'info',
    base: { service: options.service },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    mixin: (fields: object) => known(fields),
    mixinMergeStrategy: (fields: object, mixed: object) => ({ ...fields, ...mixed }),
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: redacted, censor: '[redacted]' },
  };
  return pino(settings, options.destination ?? pino.destination(batched));
}

/** What a line says about for whom it was written, where its own fields do not. */
function known(fields: { readonly tenant?: unknown; readonly requestId?: unknown }) {
  const { tenant = noTenant, requestId } = current.getStore() ?? {};
  const span = isTracing() ? trace.getActiveSpan() : undefined;
  return {
    ...(!fields.tenant && { tenant }),
    ...(!fields.requestId && requestId !== undefined && { requestId }),
    ...(span !== undefined && { traceId: span.spanContext().traceId }),
  };
}

/** The message of whatever was thrown. */
export const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));

/** Why something failed, down to its root: `fetch` itself only says that it failed. */
export function reasonOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return reasonOf(thrown.errors[0]);
  return thrown instanceof Error && thrown.cause !== undefined ? reasonOf(thrown.cause) : messageOf(thrown);
}
