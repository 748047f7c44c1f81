import type { Realm } from '@somagent/bootstrap/realm-types.ts';
import type { Plane as PlaneName } from '@somagent/constructs';
import type { ImageName } from '@somagent/images';
import type { Transform } from '../bridge/index.ts';
import type { RegionSize } from './sizes.ts';

/** The products of a region and the plane in whose namespace each one runs. */
export const productPlanes = {
  bootstrap: 'system',
  opa: 'system',
  postgres: 'data',
  kafka: 'data',
  'schema-registry': 'data',
  'object-store': 'data',
  qdrant: 'data',
  clickhouse: 'data',
  keycloak: 'identity',
  openfga: 'identity',
  policy: 'identity',
  'audit-witness': 'identity',
  temporal: 'runtime',
  slm: 'runtime',
  embeddings: 'runtime',
  identity: 'services',
  audit: 'services',
  relations: 'services',
  'memory-gateway': 'services',
  analytics: 'services',
  training: 'services',
  orchestrator: 'services',
  scaler: 'services',
  gateway: 'services',
} as const satisfies Record<string, PlaneName>;

/** A product that runs in a plane. */
export type PlacedProduct = keyof typeof productPlanes;

/** Everything that a region deploys; each has a `transform` slot. */
export type ProductName = 'namespaces' | PlacedProduct;

/** Last word on the objects of each product. */
export type Transforms = Readonly<Partial<Record<ProductName, Transform>>>;

/** Arguments of {@link Region}: plain values, so that a preview knows every object. */
export interface RegionArgs {
  /** The full reference of one of our images, tag included. */
  readonly image: (name: ImageName) => string;
  readonly size: RegionSize;
  /** Where clients reach the gateway, such as `https://localhost:8443`. */
  readonly gatewayUrl: string;
  /** Where clients reach Keycloak; the issuer of every token begins with it. */
  readonly identityUrl: string;
  /** Where clients reach the identity service: tenants, people, keys, the kill switch. */
  readonly accountsUrl: string;
  /** Where clients reach the audit log. */
  readonly auditUrl: string;
  /** Where clients reach what agents remember. */
  readonly memoryUrl: string;
  /** Where clients reach the figures. */
  readonly analyticsUrl: string;
  /** Where clients reach training mode. */
  readonly trainingUrl: string;
  /** Port of every node that leads to the gateway. @default none: something else leads there */
  readonly gatewayNodePort?: number | undefined;
  /** Port of every node that leads to Keycloak. @default none */
  readonly identityNodePort?: number | undefined;
  /** Port of every node that leads to the identity service. @default none */
  readonly accountsNodePort?: number | undefined;
  /** Port of every node that leads to the audit log. @default none */
  readonly auditNodePort?: number | undefined;
  /** Port of every node that leads to the memory gateway. @default none */
  readonly memoryNodePort?: number | undefined;
  /** Port of every node that leads to analytics. @default none */
  readonly analyticsNodePort?: number | undefined;
  /** Port of every node that leads to training. @default none */
  readonly trainingNodePort?: number | undefined;
  /** Where the API server is, as CIDRs: pods that use it may reach no other address. @default any address */
  readonly apiServerCidrs?: readonly string[] | undefined;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string | undefined;
  /** `kuberay` where its operator is installed, else plain `pods`. */
  readonly rayRenderer: 'pods' | 'kuberay';
  /** `strimzi` where its operator is installed, else plain `pods`. */
  readonly kafkaRenderer: 'pods' | 'strimzi';
  /** `server` where Qdrant's own image can be had, else its embedded engine. */
  readonly qdrantRenderer: 'edge' | 'server';
  /** `server` where ClickHouse's own image can be had, else its embedded engine. */
  readonly clickhouseRenderer: 'embedded' | 'server';
  /** `keda` where its operator is installed, else a scaler of our own. */
  readonly scalerRenderer: 'pods' | 'keda';
  /** The only registry that images of this environment may come from, without scheme. */
  readonly registry: string;
  readonly realm: Realm;
  readonly transform?: Transforms | undefined;
}
