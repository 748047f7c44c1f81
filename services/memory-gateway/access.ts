import type { ControlState, RelationChecker, VerdictSink } from '@somagent/governance';
import { type Caller, type PolicyEngine, type PolicyInput, Problem, type VerdictRecord } from '@somagent/governance';
import { tenantPattern } from '@somagent/kit';
import { objectOf, tenantObject } from '@somagent/relations/tuples.ts';
import type { MemoryFilter, Scope, Visibility } from './scope.ts';

/** For whom a workload asks. */
export interface OnBehalf {
  readonly tenant: string;
  readonly subject: string;
  readonly persona?: string | undefined;
  readonly sessionId?: string | undefined;
}

/** One request, as far as access depends on it. */
export interface AccessRequest {
  readonly caller: Caller;
  readonly onBehalf?: OnBehalf | undefined;
  readonly requestId: string;
  readonly route: string;
  readonly method: string;
  readonly path: string;
  readonly capability: 'memory:read' | 'memory:write' | 'memory:forget' | 'memory:export';
}

/** Who asks in the end: a person or agent, by a token of its own or by a workload that it has asked. */
export interface Asker {
  readonly tenant: string;
  readonly subject: string;
}

/** What one question of the policy is about. */
interface Touched {
  /** Name of the object whose relation decides. */
  readonly object: string;
  readonly relation: string;
}

/** Whom access asks. */
export interface AccessParts {
  readonly relations: Pick<RelationChecker, 'check'>;
  readonly policy: Pick<PolicyEngine, 'evaluate' | 'revision'>;
  readonly control: ControlState;
  readonly verdicts: Pick<VerdictSink, 'record'>;
}

const entrypoint = 'soma/data/verdict';
const service = 'memory-gateway';

/**
 * Which memories a request may touch. Relations say whose they are, and the policy of data decides on each scope,
 * beside what governance has decided on the route; each of its verdicts is recorded.
 */
export class Access {
  readonly #parts: AccessParts;

  constructor(parts: AccessParts) {
    this.#parts = parts;
  }

  /** Who asks. @throws Problem when a workload names nobody, or somebody else names another. */
  askerOf({ caller, onBehalf }: AccessRequest): Asker {
    if (caller.kind !== 'workload') {
      if (onBehalf !== undefined) throw new Problem('forbidden', 'onBehalf is for workloads of the platform');
      return { tenant: caller.tenant, subject: caller.subject };
    }
    if (onBehalf === undefined) throw new Problem('invalid-request', 'onBehalf: name the tenant and subject');
    if (!tenantPattern.test(onBehalf.tenant)) throw new Problem('invalid-request', 'onBehalf.tenant is no tenant');
    return { tenant: onBehalf.tenant, subject: onBehalf.subject };
  }

  /**
   * What the request may see, narrowed by its filter. Named persona, team and session are looked into if the relation
   * is held, and do not exist otherwise; without a name it is the asker's own and what its teams share.
   */
  async toRead(request: AccessRequest, filter: MemoryFilter): Promise<Scope> {
    const asker = this.askerOf(request);
    await this.#require(request, asker, own(asker));
    const visible = request.onBehalf
      ? visibleOnBehalf(request.onBehalf)
      : { ...(await this.#named(request, asker, filter)), owner: asker.subject };
    return { tenant: asker.tenant, visible, filter };
  }

  /** The asker's own memories of the filter; the tenant's administrator may name another owner, or all. */
  async toForget(request: AccessRequest, filter: MemoryFilter, all: boolean): Promise<Scope> {
    const asker = this.askerOf(request);
    const { tenant, subject } = asker;
    if (!all && (filter.owner ?? subject) === subject) {
      await this.#require(request, asker, own(asker));
      return { tenant, visible: { owner: subject }, filter };
    }
    return this.toManage(request, filter);
  }

  /** Memories of the whole tenant, for whoever manages it. */
  async toManage(request: AccessRequest, filter: MemoryFilter): Promise<Scope> {
    const asker = this.askerOf(request);
    await this.#require(request, asker, { object: tenantObject(asker.tenant), relation: 'can_manage' });
    return { tenant: asker.tenant, visible: { whole: true }, filter };
  }

  /** Where a new memory shall be visible: every place that is named must be one that the asker uses. */
  async toStore(
    request: AccessRequest,
    { team, persona, sessionId }: Pick<MemoryFilter, 'team' | 'persona' | 'sessionId'>,
  ): Promise<Asker> {
    const asker = this.askerOf(request);
    const { tenant } = asker;
    await this.#require(request, asker, own(asker));
    // A workload says where it works; a person has to be allowed there.
    const places: Touched[] = [
      ...(team === undefined ? [] : [{ object: objectOf('team', tenant, team), relation: 'member' }]),
      ...(request.onBehalf || !persona ? [] : [{ object: objectOf('persona', tenant, persona), relation: 'can_use' }]),
      ...(request.onBehalf || sessionId === undefined
        ? []
        : [{ object: objectOf('session', tenant, sessionId), relation: 'can_use' }]),
    ];
    for (const place of places) await this.#require(request, asker, place);
    return asker;
  }

  /** One memory, by the relation that governance has found held for the route. */
  async toOne(request: AccessRequest, id: string, relation: 'can_view' | 'can_forget'): Promise<Scope> {
    const asker = this.askerOf(request);
    await this.#require(request, asker, { object: objectOf('memory', asker.tenant, id), relation });
    return { tenant: asker.tenant, visible: { whole: true }, filter: {} };
  }

  async #named(request: AccessRequest, asker: Asker, filter: MemoryFilter): Promise<Visibility> {
    const { team, persona, sessionId } = filter;
    const { tenant } = asker;
    const look = async (object: string) => this.#require(request, asker, { object, relation: 'can_view' });
    if (team !== undefined) await look(objectOf('team', tenant, team));
    if (persona) await look(objectOf('persona', tenant, persona));
    if (sessionId !== undefined) await look(objectOf('session', tenant, sessionId));
    return {
      teams: team !== undefined ? [team] : await this.#teamsOf(request, asker),
      personas: persona ? [persona] : [],
      sessions: sessionId === undefined ? [] : [sessionId],
    };
  }

  /** Teams of the token that are still the asker's. */
  async #teamsOf(request: AccessRequest, asker: Asker): Promise<readonly string[]> {
    const decided = await Promise.all(
      request.caller.teams.map(async (team) => {
        const touched = { object: objectOf('team', asker.tenant, team), relation: 'can_view' };
        return (await this.#decide(request, asker, touched)) === null ? [team] : [];
      }),
    );
    return decided.flat();
  }

  async #require(request: AccessRequest, asker: Asker, touched: Touched): Promise<void> {
    const refusal = await this.#decide(request, asker, touched);
    if (refusal !== null) throw refusal;
  }

  async #decide(request: AccessRequest, asker: Asker, touched: Touched): Promise<Problem | null> {
    const begun = performance.now();
    const held = await this.#held(request, asker, touched);
    const input = this.#inputOf(request, asker, touched, held);
    const verdict = this.#evaluate(input);
    const refusal = verdict.allow ? null : refusalOf(touched, held, verdict);
    this.#parts.verdicts.record({
      ...recordOf(request, input),
      ...verdict,
      revision: this.#parts.policy.revision,
      latencyUs: Math.round((performance.now() - begun) * 1000),
      status: refusal?.status ?? null,
    });
    return refusal;
  }

  async #held({ capability }: AccessRequest, asker: Asker, { object, relation }: Touched): Promise<boolean> {
    const use = capability === 'memory:read' || capability === 'memory:export' ? 'read' : 'write';
    try {
      return (await this.#parts.relations.check(asker, relation, object, { use })).held;
    } catch {
      throw new Problem('unavailable', 'relations cannot be checked at the moment: try again', { 'retry-after': '2' });
    }
  }

  #evaluate(input: PolicyInput) {
    try {
      const { allow, rule, reasons } = this.#parts.policy.evaluate(entrypoint, input);
      return { allow, rule, reasons };
    } catch {
      throw new Problem('unavailable', 'no policy is in force, so nothing is allowed: try again', {
        'retry-after': '2',
      });
    }
  }

  #inputOf(request: AccessRequest, asker: Asker, { object, relation }: Touched, held: boolean): PolicyInput {
    const { caller, route, method, capability, requestId } = request;
    const { control } = this.#parts;
    const { kind, subject: id, roles, teams, client, scopes } = caller;
    const audit = capability === 'memory:read' || capability === 'memory:export' ? 'read' : 'write';
    return {
      subject: { tenant: kind === 'workload' ? null : caller.tenant, id, kind, roles, teams, client, scopes },
      action: { service, route, method, capability, audit },
      resource: { tenant: asker.tenant, type: 'memory', id: object },
      relation: { required: relation, held },
      control: {
        halted: control.halted(asker.tenant),
        suspended: control.suspended(asker.tenant, asker.subject),
        revoked: false,
        training: control.training(asker.tenant),
      },
      context: { time: new Date().toISOString(), requestId },
    };
  }
}

/** Who belongs to the tenant owns its own memories there. */
const own = ({ tenant }: Asker): Touched => ({ object: tenantObject(tenant), relation: 'can_view' });

/** What a session sees: what it remembers itself, and what its asker owns. */
const visibleOnBehalf = ({ subject, sessionId }: OnBehalf): Visibility => ({
  owner: subject,
  sessions: sessionId === undefined ? [] : [sessionId],
});

/** What the asker has no relation to does not exist for it. */
function refusalOf(
  { object }: Touched,
  held: boolean,
  { rule, reasons }: { readonly rule: string; readonly reasons: readonly string[] },
): Problem {
  const name = object.replace(/^(\w+):[^/]*\/?/, '$1 ').trim();
  if (!held && !object.startsWith('tenant:'))
    return new Problem('not-found', `${decodeURIComponent(name)} does not exist`);
  return new Problem(rule.endsWith('.deny_halted') ? 'halted' : 'forbidden', reasons.join('; '));
}

const recordOf = ({ caller, requestId, route, method, path, capability }: AccessRequest, input: PolicyInput) =>
  ({
    time: new Date().toISOString(),
    requestId,
    tenant: input.resource.tenant,
    actor: { kind: caller.kind, id: caller.subject, client: caller.client },
    service,
    route,
    method,
    path,
    capability,
    resource: { type: input.resource.type, id: input.resource.id },
    input,
  }) satisfies Partial<VerdictRecord>;
