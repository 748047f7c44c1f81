/** A field that is not as declared. */
export interface Difference {
  /** Path of the field, such as `attributes.access.token.lifespan`. */
  readonly field: string;
  readonly before: unknown;
  readonly after: unknown;
}

/** Fields whose values nobody may read in a log. */
const secretFields = new Set(['secret', 'value', 'credentials']);
const hidden = '(secret)';

/** What of a wish is not so in what is stored. Fields that the wish does not name are not ours. */
export function differences(wish: unknown, stored: unknown, path = ''): Difference[] {
  if (Array.isArray(wish)) return sameList(wish, stored) ? [] : [difference(path, stored, wish)];
  if (typeof wish === 'object' && wish !== null) {
    const fields: Record<string, unknown> = typeof stored === 'object' && stored !== null ? { ...stored } : {};
    return Object.entries(wish).flatMap(([key, value]) =>
      differences(value, fields[key], path === '' ? key : `${path}.${key}`),
    );
  }
  return wish === stored ? [] : [difference(path, stored, wish)];
}

/** Lists are compared as a whole, item by item, in order. */
function sameList(wish: readonly unknown[], stored: unknown): boolean {
  if (!Array.isArray(stored) || stored.length !== wish.length) return false;
  return wish.every((item, at) => differences(item, stored[at]).length === 0);
}

function difference(field: string, before: unknown, after: unknown): Difference {
  const isSecret = secretFields.has(field.slice(field.lastIndexOf('.') + 1));
  if (!isSecret) return { field, before: before ?? null, after: after ?? null };
  return { field, before: before === undefined ? null : hidden, after: after === undefined ? null : hidden };
}
