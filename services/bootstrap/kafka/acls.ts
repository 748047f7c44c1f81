import {
  type Acl,
  AclOperations,
  AclPermissionTypes,
  type Admin,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka';
import type { PlannedAcl } from './plan.ts';
import type { Report } from './report.ts';

const resourceTypes = { topic: ResourceTypes.TOPIC, group: ResourceTypes.GROUP } as const;
const operations = { read: AclOperations.READ, write: AclOperations.WRITE, describe: AclOperations.DESCRIBE } as const;

/** The filter that every rule passes. */
export const everyRule = {
  resourceType: ResourceTypes.ANY,
  resourceName: null,
  resourcePatternType: ResourcePatternTypes.ANY,
  principal: null,
  host: null,
  operation: AclOperations.ANY,
  permissionType: AclPermissionTypes.ANY,
};

/** Makes the brokers' rules exactly the declared grants: one too many is a hole and is removed first. */
export async function reconcileAcls(admin: Admin, acls: readonly PlannedAcl[], report: Report): Promise<void> {
  const declared = new Map(acls.flatMap(rulesOf).map((rule) => [describe(rule), rule]));
  const existing = new Map((await existingRules(admin)).map((rule) => [describe(rule), rule]));
  for (const [text, rule] of existing) {
    if (declared.has(text)) {
      report.unchanged();
      continue;
    }
    await admin.deleteAcls({ filters: [rule] });
    report.removed('rule', { rule: text });
  }
  const missing = [...declared].filter(([text]) => !existing.has(text));
  if (missing.length > 0) await admin.createAcls({ creations: missing.map(([, rule]) => rule) });
  for (const [text] of missing) report.created('rule', { rule: text });
}

function rulesOf({ user, resource, operations: granted }: PlannedAcl): Acl[] {
  return granted.map((operation) => ({
    resourceType: resourceTypes[resource.type],
    resourceName: resource.name,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: `User:${user}`,
    host: '*',
    operation: operations[operation],
    permissionType: AclPermissionTypes.ALLOW,
  }));
}

async function existingRules(admin: Admin): Promise<Acl[]> {
  const resources = await admin.describeAcls({ filter: everyRule });
  return resources.flatMap(({ resourceType, resourceName, resourcePatternType, acls }) =>
    acls.map(({ principal, host, operation, permissionType }) => ({
      ...{ resourceType, resourceName, resourcePatternType },
      ...{ principal, host, operation, permissionType },
    })),
  );
}

/** One rule in words; equal words are equal rules. */
function describe(rule: Acl): string {
  const permission = nameOf(AclPermissionTypes, rule.permissionType);
  const operation = nameOf(AclOperations, rule.operation);
  const pattern = nameOf(ResourcePatternTypes, rule.resourcePatternType);
  const type = nameOf(ResourceTypes, rule.resourceType);
  return `${rule.principal} from ${rule.host}: ${permission} ${operation} on ${pattern} ${type} "${rule.resourceName}"`;
}

function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  const found = Object.entries(values).find(([, candidate]) => candidate === value);
  return found === undefined ? String(value) : found[0].toLowerCase();
}
