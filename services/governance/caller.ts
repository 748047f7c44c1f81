/** What kind of subject sends a request. */
export type CallerKind = 'user' | 'service-account' | 'api-key' | 'workload';

/** Who sends a request, from a verified credential and nothing else. */
export interface Caller {
  readonly kind: CallerKind;
  /** The tenant that the credential belongs to; {@link platformTenant} for operators and workloads. */
  readonly tenant: string;
  /** `sub` of the token; the owner of an API key. */
  readonly subject: string;
  /** The client that obtained the token, the API key's id, or null. */
  readonly client: string | null;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  /** Capabilities that an API key is limited to; null where roles alone decide. */
  readonly scopes: readonly string[] | null;
  /** Names under which the credential can be revoked. */
  readonly revocable: { readonly sid?: string; readonly jti?: string; readonly keyId?: string };
}

/** Stands where there is no tenant: operators of the platform and its own workloads. No tenant can have this name. */
export const platformTenant = 'platform';

/** The tenant as events and policies write it: null where there is none. */
export const tenantOrNull = (tenant: string): string | null => (tenant === platformTenant ? null : tenant);
