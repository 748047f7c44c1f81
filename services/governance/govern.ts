import { setTimeout as sleep } from 'node:timers/promises';
import { inChildSpan, inSpanSync } from '@somagent/kit';
import type { Context, MiddlewareHandler, Next } from 'hono';
import { matchedRoutes } from 'hono/route';
import { type Authentication, authenticate } from './authentication.ts';
import { type Caller, tenantOrNull } from './caller.ts';
import { beginExchange, type Exchange, type GovernedEnv } from './exchange.ts';
import type {
  ControlState,
  LimitReached,
  PolicyEngine,
  PolicyInput,
  PolicyVerdict,
  Quota,
  RelationChecker,
  VerdictSink,
} from './neighbours.ts';
import { Problem } from './problem.ts';
import { asCaller, noteVerdict } from './request-span.ts';
import type { DeclaredRoute, PathValues } from './route.ts';
import { policyRecord } from './verdict.ts';

/** Whom governance asks. Nothing here has a default: what is not there can't be left out by mistake. */
export interface GovernanceOptions {
  /** Name of the service in verdicts and policy input. */
  readonly service: string;
  readonly authentication: Authentication;
  readonly control: ControlState;
  readonly quota: Quota;
  readonly relations: RelationChecker;
  readonly policy: PolicyEngine;
  readonly verdicts: VerdictSink;
}

/** Largest request body where a route declares no other, bytes. */
export const bodyLimitBytes = 64 * 1024;

/**
 * So much beyond the limit is read and thrown away, for so many milliseconds: a client that is still sending would lose
 * the answer with the connection.
 */
const discarded = { bytes: 1024 * 1024, time: 1000 };

/** Entry point of the policy for requests over HTTP. */
const entrypoint = 'soma/gateway/verdict';

type Handler = (context: Context<GovernedEnv>) => Response | Promise<Response>;

/** Routes by the function that Hono calls for them: what was registered past the declarations is not in it. */
export type HandlerRoutes = ReadonlyMap<unknown, DeclaredRoute>;

/**
 * What happens to each request before its schema is looked at: who asks, may this credential still be used, within
 * which limits, for a declared route, with a body that can be read.
 */
export function admission(options: GovernanceOptions, routes: HandlerRoutes): MiddlewareHandler<GovernedEnv> {
  return async (context, next) => {
    const exchange = beginExchange(context);
    context.header('x-request-id', exchange.requestId);
    exchange.route = routes.get(matchedRoutes(context).at(-1)?.handler) ?? null;
    requireRecord(options.verdicts);
    const caller = await authenticate(context.req.header('authorization'), options.authentication);
    exchange.caller = caller;
    context.set('caller', caller);
    return asCaller(context, exchange, () => admitted(options, context, caller, next));
  };
}

async function admitted(
  { control, quota }: GovernanceOptions,
  context: Context<GovernedEnv>,
  caller: Caller,
  next: Next,
): Promise<void> {
  const { route } = context.get('exchange');
  requireStanding(caller, control);
  const reached = quota.take(caller.tenant, caller.subject);
  requireWithin(reached instanceof Promise ? await reached : reached);
  if (route == null) throw new Problem('not-found', `there is no ${context.req.method} ${context.req.path}`);
  if (!hasBody(context)) return next();
  requireJson(context);
  await readBody(context, route.bodyLimit ?? bodyLimitBytes);
  return next();
}

/** A handler that runs only after relation and policy have been asked, and the verdict is recorded. */
export function decided(options: GovernanceOptions, route: DeclaredRoute, handler: Handler): Handler {
  return async (context) => {
    const exchange = context.get('exchange');
    const caller = context.get('caller');
    const params = (context.req.param() ?? {}) as PathValues;
    const held = route.relation === undefined ? null : await relationHeld(options.relations, route, params, caller);
    const input = inputOf(options, exchange, route, caller, params, held);
    const decision = { input, verdict: evaluate(options.policy, input), revision: options.policy.revision };
    const refusal = decision.verdict.allow ? null : refusalOf(input, decision.verdict);
    exchange.decided = true;
    noteVerdict(exchange, decision.verdict, decision.revision);
    options.verdicts.record(policyRecord(options.service, context, exchange, decision, refusal?.status ?? null));
    if (refusal !== null) throw refusal;
    return handler(context);
  };
}

function requireRecord(verdicts: VerdictSink): void {
  if (verdicts.accepting) return;
  throw new Problem('unavailable', 'verdicts cannot be recorded at the moment, so nothing is decided: try again', {
    'retry-after': '2',
  });
}

/** Refuses what was taken back: the credential, the user or the tenant. Halts are the matter of the policy. */
function requireStanding({ tenant, subject, revocable }: Caller, control: ControlState): void {
  if (!control.ready) throw new Problem('unavailable', 'the control state is not known yet: try again');
  if (control.revoked(revocable)) {
    throw new Problem('token-revoked', 'the credential was revoked: sign in again', {
      'www-authenticate': 'Bearer error="invalid_token", error_description="it was revoked"',
    });
  }
  const suspended = control.suspended(tenant, subject);
  if (suspended !== null) throw new Problem('suspended', `the ${suspended} is suspended: ask its administrator`);
}

function requireWithin(reached: LimitReached | null): void {
  if (reached === null) return;
  const { limit, retryAfterSeconds } = reached;
  throw new Problem('rate-limited', `${limit}: wait ${retryAfterSeconds} s`, {
    'retry-after': String(retryAfterSeconds),
  });
}

const hasBody = ({ req }: Context): boolean =>
  req.header('transfer-encoding') !== undefined || Number(req.header('content-length') ?? 0) > 0;

function requireJson({ req }: Context): void {
  const type = req.header('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type === 'application/json') return;
  throw new Problem('media-type', `content-type is ${type ?? 'not set'}: send application/json`);
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads the body as the text that JSON is (RFC 8259 §8.1), for whoever parses it: a decoder that replaces what it can't
 * read would hand over something else than was sent.
 */
async function readBody({ req }: Context, limit: number): Promise<void> {
  // A declared length is enough to refuse; a body in chunks has to be counted.
  const isCounted = req.header('transfer-encoding') !== undefined;
  const declared = Number(req.header('content-length'));
  if (!isCounted && declared > limit) {
    if (declared <= limit + discarded.bytes) await Promise.race([discard(req.raw), sleep(discarded.time)]);
    refuseBody(limit);
  }
  const bytes = isCounted ? await countedBody(req.raw, limit) : await req.raw.arrayBuffer();
  // Hono keeps promises here, whatever its type says.
  req.bodyCache.text = Promise.resolve(textOf(bytes)) as unknown as string;
}

async function discard({ body }: Request): Promise<void> {
  try {
    for await (const _ of body ?? []);
  } catch {
    // The client has gone, or was answered meanwhile.
  }
}

async function countedBody({ body }: Request, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > limit) refuseBody(limit);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function textOf(bytes: ArrayBuffer | Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new Problem('invalid-request', 'the body is not UTF-8');
  }
}

function refuseBody(limit: number): never {
  throw new Problem('body-too-large', `a request has at most ${limit} bytes`);
}

async function relationHeld(
  relations: RelationChecker,
  { relation, audit }: DeclaredRoute,
  params: PathValues,
  caller: Caller,
): Promise<boolean | null> {
  if (relation === undefined) return null;
  try {
    const use = audit === 'write' || audit === 'admin' ? 'write' : 'read';
    return await inChildSpan(`relation ${relation.relation}`, {}, async (span) => {
      const { held, ageMs } = await relations.check(caller, relation.relation, relation.object(params, caller), {
        use,
      });
      span.setAttributes({ 'soma.relation.held': held, 'soma.relation.age_ms': ageMs });
      return held;
    });
  } catch {
    throw new Problem('unavailable', 'relations cannot be checked at the moment: try again', { 'retry-after': '2' });
  }
}

function inputOf(
  { service, control }: GovernanceOptions,
  exchange: Exchange,
  { operationId, method, capability, audit, relation }: DeclaredRoute,
  caller: Caller,
  params: PathValues,
  held: boolean | null,
): PolicyInput {
  const { kind, tenant, subject, roles, teams, client, scopes } = caller;
  const of = params.tenant ?? tenant;
  return {
    subject: { tenant: tenantOrNull(tenant), id: subject, kind, roles, teams, client, scopes },
    action: { service, route: operationId, method: method.toUpperCase(), capability, audit },
    resource: { tenant: tenantOrNull(of), type: capability.slice(0, capability.indexOf(':')), id: params.id ?? null },
    relation: { required: relation?.relation ?? null, held },
    // Suspended and revoked callers do not come this far; both stay in the input, because the policy forbids them too.
    control: { halted: control.halted(of), suspended: null, revoked: false, training: control.training(of) },
    context: { time: new Date(exchange.receivedAt).toISOString(), requestId: exchange.requestId },
  };
}

function evaluate(policy: PolicyEngine, input: PolicyInput) {
  try {
    return inSpanSync(`policy ${entrypoint}`, {}, (span) => {
      const verdict = policy.evaluate(entrypoint, input);
      span.setAttribute('soma.rule', verdict.rule);
      return verdict;
    });
  } catch {
    throw new Problem('unavailable', 'no policy is in force, so nothing is allowed: try again', { 'retry-after': '2' });
  }
}

/** How a refusal of the policy is shown. What a caller has no relation to does not exist for it. */
function refusalOf({ relation, resource }: PolicyInput, { rule, reasons }: PolicyVerdict): Problem {
  if (relation.held === false) return new Problem('not-found', `${resource.type} ${resource.id} does not exist`);
  return new Problem(rule.endsWith('.deny_halted') ? 'halted' : 'forbidden', reasons.join('; '));
}
