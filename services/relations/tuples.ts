/** Types of objects that the model knows. */
export const objectTypes = ['tenant', 'team', 'persona', 'capsule', 'session', 'memory', 'tool'] as const;

/** Type of an object that the model knows. */
export type ObjectType = (typeof objectTypes)[number];

/** A condition that a tuple carries, with the part of its context that is stored. */
export interface TupleCondition {
  readonly name: string;
  readonly context?: Readonly<Record<string, unknown>>;
}

/** One fact: `user` has `relation` to `object`. */
export interface Tuple {
  /** `user:<tenant>/<subject>`, or another object, or a set of users such as `team:acme/blue#member`. */
  readonly user: string;
  readonly relation: string;
  readonly object: string;
  readonly condition?: TupleCondition;
}

/** Who asks: from a verified token and nothing else. */
export interface RelationSubject {
  readonly tenant: string;
  /** `sub` of the token. */
  readonly subject: string;
}

/**
 * Name of an object of a tenant, such as `session:acme/3f…`; of the tenant itself, `tenant:acme`. Characters that
 * OpenFGA gives a meaning to are escaped, so that no id can name another object.
 */
export const objectOf = (type: Exclude<ObjectType, 'tenant'>, tenant: string, id: string): string =>
  `${type}:${tenant}/${encodeURIComponent(id)}`;

/** Name of a tenant as an object. */
export const tenantObject = (tenant: string): string => `tenant:${tenant}`;

/** Name of a user or service account as the subject of tuples. */
export const userOf = ({ tenant, subject }: RelationSubject): string => `user:${tenant}/${encodeURIComponent(subject)}`;

/** The parts of the name of an object, user or set of users; undefined when it is none of this platform's. */
export function parseName(
  name: string,
): { readonly type: string; readonly tenant: string; readonly id: string } | undefined {
  const match = /^([a-z]+):([a-z0-9][a-z0-9-]{0,62})(?:\/([^\s/:#]+))?(?:#[a-z_]+)?$/.exec(name);
  const [, type, tenant, id] = match ?? [];
  if (type === undefined || tenant === undefined || (id === undefined) !== (type === 'tenant')) return undefined;
  return { type, tenant, id: id === undefined ? tenant : decodeURIComponent(id) };
}

/** The tenant that a name belongs to; undefined for a name that no tenant has. */
export const tenantOf = (name: string): string | undefined => parseName(name)?.tenant;

/** Whether both ends of a tuple are of the same tenant. */
export function isWithinTenant({ user, object }: Tuple): boolean {
  const tenant = tenantOf(object);
  return tenant !== undefined && tenant === tenantOf(user);
}

/** Two tuples with the same key are the same fact, under whatever condition. */
export const keyOf = ({ user, relation, object }: Tuple): string => `${object} ${relation} ${user}`;
