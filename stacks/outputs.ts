import type { Region, RegionEndpoints } from '@somagent/components';
import type { RegionConfig, StackConfig } from './config.ts';
import { type Drill, drillsOf } from './drills.ts';
import { gatewayAudience } from './realm.ts';

/**
 * The public contract of a stack: what clients, the CLI, tests and drills read. Names are added, never changed.
 * No value here is secret.
 */
export interface StackOutputs {
  /** Where clients reach the gateway of the first region. */
  readonly gatewayUrl: string;
  /** Where clients reach the identity service of the first region: tenants, people, keys, the kill switch. */
  readonly accountsUrl: string;
  /** Where clients reach the audit log of the first region. */
  readonly auditUrl: string;
  /** Where clients reach what agents remember, the figures, and training mode, of the first region. */
  readonly memoryUrl: string;
  readonly analyticsUrl: string;
  readonly trainingUrl: string;
  /** Issuer of the first region's tokens. */
  readonly issuerUrl: string;
  readonly audience: string;
  /** Client ids of the tenants' agents; their secrets are in Secret `keycloak-client-<id>`. */
  readonly clients: readonly string[];
  /** Endpoints of every region, by its name. */
  readonly regions: Readonly<Record<string, RegionEndpoints>>;
  /** Faults that the platform says it survives, and within which limits. */
  readonly drills: readonly Drill[];
}

export function stackOutputs(
  config: StackConfig,
  regions: ReadonlyMap<RegionConfig, Region>,
  clients: readonly string[],
): StackOutputs {
  const endpoints = Object.fromEntries([...regions].map(([{ name }, region]) => [name, region.endpoints]));
  const first = config.regions[0];
  const own = first === undefined ? undefined : endpoints[first.name];
  if (own === undefined) throw new Error('a stack has at least one region');
  const { gatewayUrl, accountsUrl, auditUrl, memoryUrl, analyticsUrl, trainingUrl, issuerUrl } = own;
  return {
    gatewayUrl,
    accountsUrl,
    auditUrl,
    memoryUrl,
    analyticsUrl,
    trainingUrl,
    issuerUrl,
    audience: gatewayAudience,
    clients,
    regions: endpoints,
    drills: config.regions.flatMap(({ name }) => drillsOf(name, endpoints[name]?.namespaces ?? {})),
  };
}
