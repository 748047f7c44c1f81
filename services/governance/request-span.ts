import { context as active, type Link, ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api';
import { asTenant, contextFrom, contextOf, failSpan, isTracing, tenantOf } from '@somagent/kit';
import type { Context } from 'hono';
import { platformTenant } from './caller.ts';
import type { Exchange, GovernedEnv } from './exchange.ts';
import type { PolicyVerdict } from './neighbours.ts';
import type { Problem } from './problem.ts';

const tracer = () => trace.getTracer('@somagent/governance');

/**
 * Runs the rest of a request for its caller: its lines and spans have the tenant, which of a workload is the one that it
 * works for. A trace that a workload began is continued; one of a stranger is only linked to, or he could decide what is
 * kept here.
 */
export function asCaller<Result>(context: Context<GovernedEnv>, exchange: Exchange, work: () => Result): Result {
  const tenant = exchange.caller?.tenant ?? platformTenant;
  if (!isTracing()) return asTenant(tenant, work, exchange.requestId);
  const within = beginSpan(context, exchange);
  return asTenant(tenantOf(within) ?? tenant, () => active.with(within, work), exchange.requestId);
}

/** Begins the span of a request, as of when it came. @returns the context that the rest of the request runs in */
function beginSpan(context: Context<GovernedEnv>, exchange: Exchange) {
  const { caller, route, receivedAt, requestId } = exchange;
  const { method } = context.req;
  const sent = contextFrom({
    traceparent: context.req.header('traceparent'),
    tracestate: context.req.header('tracestate'),
    baggage: context.req.header('baggage'),
  });
  const isOurs = caller?.kind === 'workload';
  const tenant = (isOurs ? tenantOf(sent) : undefined) ?? caller?.tenant ?? platformTenant;
  const parent = contextOf(tenant, isOurs ? sent : ROOT_CONTEXT);
  const stranger = isOurs ? undefined : trace.getSpanContext(sent);
  const links: Link[] = stranger === undefined ? [] : [{ context: stranger }];
  const span = tracer().startSpan(
    `${method} ${route?.path ?? 'undeclared'}`,
    {
      kind: SpanKind.SERVER,
      startTime: receivedAt,
      links,
      attributes: {
        'http.request.method': method,
        ...(route != null && { 'http.route': route.path, 'soma.operation': route.operationId }),
        'soma.request_id': requestId,
        'soma.subject': caller?.subject ?? 'anonymous',
      },
    },
    parent,
  );
  exchange.span = span;
  return trace.setSpan(parent, span);
}

/** Notes what the policy said. */
export function noteVerdict({ span }: Exchange, { allow, rule }: PolicyVerdict, revision: string | null): void {
  span?.setAttributes({ 'soma.decision': allow ? 'allow' : 'deny', 'soma.rule': rule });
  if (revision !== null) span?.setAttribute('soma.policy_revision', revision);
}

/** Notes a refusal; of one that came before anybody was known, the span begins here. */
export function noteProblem(context: Context<GovernedEnv>, exchange: Exchange, problem: Problem): void {
  if (!isTracing()) return;
  if (exchange.span === undefined) beginSpan(context, exchange);
  const { span, decided } = exchange;
  if (!decided) {
    span?.setAttributes({
      'soma.decision': 'deny',
      'soma.rule': `soma.governance.${problem.type.replaceAll('-', '_')}`,
    });
  }
  span?.setAttribute('error.type', problem.type);
  if (span !== undefined && problem.status >= 500) failSpan(span, problem);
}

/** Ends the span of a request, when its answer begins. */
export function endSpan({ span }: Exchange, status: number): void {
  span?.setAttribute('http.response.status_code', status);
  span?.end();
}
