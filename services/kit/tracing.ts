import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Attributes,
  type Context,
  context,
  DiagLogLevel,
  diag,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace-base';
import { z } from 'zod';
import { ConfigError, type Environment, httpsUrl, readConfig, text } from './config.ts';
import type { Logger } from './log.ts';

export { type Attributes, type Span, SpanKind } from '@opentelemetry/api';

/** The variables of tracing, of every service. Without an address nothing is traced and nothing is spent on it. */
export const tracingVariables = {
  OTEL_EXPORTER_OTLP_ENDPOINT: httpsUrl(
    'the OTLP/HTTP address of whoever takes traces, e.g. https://tempo:4318',
  ).optional(),
  OTEL_EXPORTER_OTLP_CERTIFICATE: text('the PEM file of the authority that signed the certificate there').optional(),
  OTEL_TRACES_SAMPLER_ARG: z.coerce
    .number()
    .min(0)
    .max(1)
    .describe('the share of traces that is kept, 0 to 1; a trace that somebody else began keeps what they chose')
    .default(1),
};

/** The attribute that every span has. Also the only entry of baggage that is sent or taken. */
export const tenantAttribute = 'soma.tenant';

/** Of spans in which no tenant is concerned. No tenant can have this name. */
const noTenant = 'platform';
/** Of spans that continue a trace whose tenant got lost on the way: a defect, and to be found. */
export const lostTenant = 'unknown';

/** Longest that the end of a process waits for whoever takes traces, milliseconds. */
const lastWait = 3000;

const scope = '@somagent/kit';
let running: BasicTracerProvider | undefined;

/** Whether this process traces. */
export const isTracing = (): boolean => running !== undefined;

/** The same context for a tenant; whatever follows from it, here or in another service, is the tenant's. */
export const contextOf = (tenant: string, from: Context = context.active()): Context =>
  propagation.setBaggage(from, propagation.createBaggage({ [tenantAttribute]: { value: tenant } }));

/** The tenant that a context is of; undefined where none was ever named. */
export const tenantOf = (from: Context): string | undefined =>
  propagation.getBaggage(from)?.getEntry(tenantAttribute)?.value;

/** Gives every span its tenant as it starts, whoever starts it, so that nobody can forget it. */
export class TenantSpanProcessor implements SpanProcessor {
  onStart(span: Parameters<SpanProcessor['onStart']>[0], parent: Context): void {
    span.setAttribute(tenantAttribute, tenantOf(parent) ?? inherited(parent) ?? noTenant);
  }

  onEnd(): void {}

  async forceFlush(): Promise<void> {}

  async shutdown(): Promise<void> {}
}

/** From the span above in this process; a trace that came from elsewhere names its tenant itself. */
function inherited(parent: Context): string | undefined {
  const above = trace.getSpan(parent);
  if (above === undefined || !isSpanContextValid(above.spanContext())) return undefined;
  const attributes = 'attributes' in above ? (above.attributes as Attributes) : {};
  const tenant = attributes[tenantAttribute];
  return typeof tenant === 'string' ? tenant : lostTenant;
}

/**
 * Traces from now on, where OTEL_EXPORTER_OTLP_ENDPOINT is set; again, it changes nothing.
 * @throws ConfigError
 */
export function startTracing(service: string, log: Logger, environment: Environment = process.env): void {
  const config = readConfig(z.object(tracingVariables), environment);
  const { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_CERTIFICATE: caFile } = config;
  if (url === undefined || running !== undefined) return;
  const httpAgentOptions = () => new Agent({ keepAlive: true, ...(caFile && { ca: authority(caFile) }) });
  const exporter = new OTLPTraceExporter({ url: `${url}/v1/traces`, httpAgentOptions, timeoutMillis: 5000 });
  running = new BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'service.namespace': 'somagent' }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(config.OTEL_TRACES_SAMPLER_ARG) }),
    spanProcessors: [new TenantSpanProcessor(), new BatchSpanProcessor(exporter)],
  });
  trace.setGlobalTracerProvider(running);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(
    new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  );
  const say = (reason: string) => log.warn({ reason }, 'traces could not be handed over');
  diag.setLogger({ error: say, warn: say, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);
  log.info({ endpoint: url, share: config.OTEL_TRACES_SAMPLER_ARG }, 'this process is traced');
}

function authority(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ConfigError([`OTEL_EXPORTER_OTLP_CERTIFICATE is "${file}", which cannot be read: ${String(cause)}`]);
  }
}

/** Hands over what has ended and traces no more. Never rejects: traces are worth no failed shutdown. */
export async function stopTracing(): Promise<void> {
  const stopped = running;
  running = undefined;
  const waited = new AbortController();
  const late = sleep(lastWait, undefined, { signal: waited.signal }).catch(() => undefined);
  await Promise.race([stopped?.shutdown().catch(() => undefined), late]);
  waited.abort();
  for (const api of [trace, context, propagation, diag]) api.disable();
}

/** Options of {@link inSpan}. */
export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: Attributes;
  /** @default where the caller is */
  readonly parent?: Context;
}

/** Runs work in a span of its own, which ends with it and carries its error. */
export function inSpan<Result>(
  name: string,
  { parent = context.active(), ...options }: SpanOptions,
  work: (span: Span) => Promise<Result>,
): Promise<Result> {
  if (running === undefined) return work(silent);
  return running.getTracer(scope).startActiveSpan(name, options, parent, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      failSpan(span, error);
      throw error;
    } finally {
      span.end();
    }
  });
}

/** {@link inSpan} inside of a span only: what a process does by itself all day is no trace. */
export const inChildSpan: typeof inSpan = (name, options, work) =>
  trace.getActiveSpan() === undefined ? work(silent) : inSpan(name, options, work);

/** {@link inChildSpan} of work that is done when it returns. */
export function inSpanSync<Result>(name: string, attributes: Attributes, work: (span: Span) => Result): Result {
  if (running === undefined || trace.getActiveSpan() === undefined) return work(silent);
  return running.getTracer(scope).startActiveSpan(name, { attributes }, (span) => {
    try {
      return work(span);
    } catch (error) {
      failSpan(span, error);
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Records nothing. */
const silent: Span = trace.wrapSpanContext({ traceId: '', spanId: '', traceFlags: 0 });

/** By the name of the error only: a message may hold what somebody said. */
export function failSpan(span: Span, error: unknown): void {
  span.setStatus({ code: SpanStatusCode.ERROR });
  span.setAttribute('error.type', error instanceof Error ? error.name : typeof error);
}

/** The headers `traceparent` and `baggage` of a context; none where nothing is traced. */
export function traceHeaders(from: Context = context.active()): Record<string, string> {
  const headers: Record<string, string> = {};
  if (running !== undefined) propagation.inject(from, headers);
  return headers;
}

/**
 * The context that headers of one of our own workloads name. Never for headers from outside: a stranger could have his
 * spans kept, and name a tenant.
 */
export const contextFrom = (headers: Readonly<Record<string, string | undefined>>): Context => {
  const { traceparent, tracestate, baggage } = headers;
  const found = propagation.extract(ROOT_CONTEXT, { traceparent, tracestate, baggage });
  const tenant = tenantOf(found);
  const own = propagation.deleteBaggage(found);
  return tenant === undefined ? own : contextOf(tenant, own);
};
