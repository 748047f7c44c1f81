import type { CallerKind } from './caller.ts';
import type { AuditClass } from './route.ts';

/** What a policy decides from. */
export interface PolicyInput {
  readonly subject: {
    /** Null for the platform's own: operators and workloads. */
    readonly tenant: string | null;
    readonly id: string;
    readonly kind: CallerKind;
    readonly roles: readonly string[];
    readonly teams: readonly string[];
    readonly client: string | null;
    readonly scopes: readonly string[] | null;
  };
  readonly action: {
    readonly service: string;
    readonly route: string;
    readonly method: string;
    readonly capability: string;
    readonly audit: AuditClass;
  };
  readonly resource: { readonly tenant: string | null; readonly type: string; readonly id: string | null };
  readonly relation: { readonly required: string | null; readonly held: boolean | null };
  readonly control: {
    readonly halted: boolean;
    readonly suspended: 'tenant' | 'user' | null;
    readonly revoked: boolean;
    readonly training: 'locked' | 'unlocked';
  };
  readonly context: { readonly time: string; readonly requestId: string };
}

/** What a policy says. */
export interface PolicyVerdict {
  readonly allow: boolean;
  /** Id of the deciding rule. */
  readonly rule: string;
  /** In words. */
  readonly reasons: readonly string[];
}

/** Decides in process. Without a bundle it throws: there is no default. */
export interface PolicyEngine {
  readonly ready: boolean;
  /** The bundle in force; null before the first. */
  readonly revision: string | null;
  evaluate(entrypoint: string, input: PolicyInput): PolicyVerdict;
}

/** Asks OpenFGA, or a memory of it of bounded age. */
export interface RelationChecker {
  /** Rejects when OpenFGA does not answer and nothing recent enough for the use is remembered. */
  check(
    subject: { readonly tenant: string; readonly subject: string },
    relation: string,
    object: string,
    options: { readonly use: 'read' | 'write' },
  ): Promise<{ readonly held: boolean; readonly ageMs: number }>;
}

/** Who is suspended, what is revoked and halted, as identity said last. */
export interface ControlState {
  /** Whether identity has spoken at least once. */
  readonly ready: boolean;
  halted(tenant: string): boolean;
  suspended(tenant: string, subject: string): 'tenant' | 'user' | null;
  revoked(names: { readonly sid?: string; readonly jti?: string; readonly keyId?: string }): boolean;
  training(tenant: string): 'locked' | 'unlocked';
}

/** A control state that tells of its changes, for answers that last. */
export interface FollowedControlState extends ControlState {
  /** Calls the listener after each change. @returns ends it */
  onChange(listener: () => void): () => void;
}

/** A refusal for the sake of a limit. */
export interface LimitReached {
  /** Which limit, in words. */
  readonly limit: string;
  readonly retryAfterSeconds: number;
}

/** Counts requests against the limits of a tenant and a subject. */
export interface Quota {
  /** Takes one request. @returns null when it is within every limit. */
  take(tenant: string, subject: string): LimitReached | null | Promise<LimitReached | null>;
}

/** A verdict as it is recorded: the event `verdict.decided` of @somagent/events. */
export interface VerdictRecord {
  /** ISO 8601, milliseconds. */
  readonly time: string;
  readonly requestId: string;
  /** Null for the platform itself and for callers that nobody knows. */
  readonly tenant: string | null;
  readonly actor: { readonly kind: CallerKind | 'system'; readonly id: string; readonly client: string | null };
  readonly service: string;
  /** `operationId`; `undeclared` for what no route is declared for. */
  readonly route: string;
  readonly method: string;
  /** Template of the path, e.g. `/v1/sessions/{id}`; null for what no route is declared for. */
  readonly path: string | null;
  readonly capability: string | null;
  readonly resource: { readonly type: string; readonly id: string | null } | null;
  readonly allow: boolean;
  readonly rule: string;
  readonly reasons: readonly string[];
  /** Of the policy bundle; null when the policy was not asked. */
  readonly revision: string | null;
  /** From receipt to verdict, microseconds. */
  readonly latencyUs: number;
  /** HTTP status of a refusal; null where the request was handed to its handler. */
  readonly status: number | null;
  /** What the policy saw; null when it was not asked. */
  readonly input: PolicyInput | null;
}

/** Takes verdicts on their way to Kafka. */
export interface VerdictSink {
  /** False when neither Kafka nor the outbox takes any more: then nothing is served. */
  readonly accepting: boolean;
  record(verdict: VerdictRecord): void;
}
