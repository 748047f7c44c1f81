/** Who asks. */
export interface PolicySubject {
  readonly tenant: string | null;
  readonly id: string;
  readonly kind: 'user' | 'service-account' | 'api-key' | 'workload';
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  /** OAuth client, which for an agent is its persona. */
  readonly client: string | null;
  /** Capabilities of an API key; null for everybody else. */
  readonly scopes: readonly string[] | null;
}

/** The question behind every verdict but `soma/deploy/verdict`. A question that lacks a field is denied. */
export interface PolicyInput {
  readonly subject: PolicySubject;
  readonly action: {
    readonly service: string;
    readonly route: string;
    readonly method: string;
    readonly capability: string;
    readonly audit: 'none' | 'read' | 'write' | 'admin';
  };
  readonly resource: {
    /** Null: of no tenant. */
    readonly tenant: string | null;
    readonly type: string;
    readonly id: string | null;
    /** Who proposed what is to be approved; for `training:approve` only. */
    readonly proposedBy?: string;
  };
  readonly relation: { readonly required: string | null; readonly held: boolean | null };
  readonly control: {
    readonly halted: boolean;
    readonly suspended: 'tenant' | 'user' | null;
    readonly revoked: boolean;
    readonly training: 'locked' | 'unlocked';
  };
  readonly context: { readonly time: string; readonly requestId: string };
}
