import { App, type Chart } from 'cdk8s';
import {
  Bootstrap,
  Embeddings,
  Gateway,
  Identity,
  Kafka,
  type KafkaProps,
  Keycloak,
  ObjectStore,
  OpenFga,
  Orchestrator,
  type Plane,
  Policy,
  Postgres,
  policyBucket,
  Qdrant,
  RegionChart,
  RegionNamespaces,
  Relations,
  SchemaRegistry,
  type SchemaRegistryProps,
  SecretPlan,
  Slm,
  Temporal,
} from './index.ts';

/** A synthesized object, loosely typed: tests compare its fields with literals. */
// biome-ignore lint/suspicious/noExplicitAny: manifests are JSON of every shape
export type Manifest = any;

/** A region to put constructs of a test into. */
export class TestRegion {
  readonly app = new App();
  readonly plan: SecretPlan;
  readonly #charts = new Map<Plane, RegionChart>();
  readonly #name: string;

  constructor(name = 'north') {
    this.#name = name;
    this.plan = new SecretPlan(name);
  }

  /** The chart of a plane. */
  chart(plane: Plane): RegionChart {
    const chart = this.#charts.get(plane) ?? new RegionChart(this.app, plane, { region: this.#name, plane });
    this.#charts.set(plane, chart);
    return chart;
  }

  /** Every object of every plane. */
  manifests(): Manifest[] {
    return [...this.#charts.values()].flatMap((chart) => manifestsOf(chart));
  }

  /** The one object of a kind and name; content-named objects are found by the name before the hash. */
  find(kind: string, name: string): Manifest {
    return findManifest(this.manifests(), kind, name);
  }
}

/** The objects of a chart, as plain JSON. */
export function manifestsOf(chart: Chart): Manifest[] {
  return JSON.parse(JSON.stringify(chart.toJson()));
}

/** The one object of a kind and name. */
export function findManifest(manifests: readonly Manifest[], kind: string, name: string): Manifest {
  const hashed = new RegExp(`^${name}(-[0-9a-f]{10})?$`);
  const found = manifests.filter((object) => object.kind === kind && hashed.test(object.metadata.name));
  if (found.length === 1) return found[0];
  const names = manifests.filter((object) => object.kind === kind).map((object) => object.metadata.name);
  throw new Error(`${found.length} objects ${kind} ${name}; there are: ${names.join(', ')}`);
}

/** The environment of the first container, by name. */
export function environmentOf(workload: Manifest): Record<string, unknown> {
  const { env } = workload.spec.template.spec.containers[0];
  return Object.fromEntries(env.map((item: Manifest) => [item.name, item.value ?? item.valueFrom]));
}

/** Mount path → name of the Secret or ConfigMap behind it. */
export function mountsOf(workload: Manifest): Record<string, string> {
  const pod = workload.spec.template.spec;
  const source = (name: string) => {
    const volume = pod.volumes.find((candidate: Manifest) => candidate.name === name);
    return volume?.secret?.secretName ?? volume?.configMap?.name ?? (volume?.emptyDir ? 'scratch' : 'claim');
  };
  return Object.fromEntries(pod.containers[0].volumeMounts.map((m: Manifest) => [m.mountPath, source(m.name)]));
}

/** Image references of a test: names of the catalogue with a fixed tag. */
export function image(name: string): string {
  return `registry.test/somagent/${name}:0123456789`;
}

/** A Postgres with the platform's databases. */
export function postgresOf(region: TestRegion, id = 'postgres'): Postgres {
  return new Postgres(region.chart('data'), id, {
    image: image('postgres'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    databases: [
      { name: 'temporal', owner: 'temporal' },
      { name: 'temporal_visibility', owner: 'temporal' },
      { name: 'keycloak', owner: 'keycloak' },
      { name: 'sessions', owner: 'sessions', readers: ['sessions_gateway', 'sessions_relations'] },
      { name: 'identity', owner: 'identity' },
      { name: 'openfga', owner: 'openfga' },
    ],
  });
}

/** A Kafka with one topic that one user may read. */
export function kafkaOf(region: TestRegion, id = 'kafka', props: Partial<KafkaProps> = {}): Kafka {
  const resource = { type: 'topic', name: 'audit.session' } as const;
  return new Kafka(region.chart('data'), id, {
    image: image('kafka'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    declared: {
      topics: [{ name: 'audit.session', partitions: 3, replicas: 3, config: { 'retention.ms': '2592000000' } }],
      users: [{ name: 'audit' }],
      acls: [{ user: 'audit', resource, operations: ['read'] }],
    },
    ...props,
  });
}

/** Our services as users of a Kafka, without rights. */
export const servicesOnKafka: Partial<KafkaProps> = {
  declared: {
    topics: [],
    users: ['gateway', 'identity', 'orchestrator', 'relations'].map((name) => ({ name })),
    acls: [],
  },
};

/** A registry with one schema. */
export function schemaRegistryOf(
  region: TestRegion,
  id = 'schema-registry',
  props: Partial<SchemaRegistryProps> = {},
): SchemaRegistry {
  return new SchemaRegistry(region.chart('data'), id, {
    image: image('schema-registry'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    schemas: [{ subject: 'audit.session-session.opened', compatibility: 'BACKWARD', versions: [{ type: 'object' }] }],
    ...props,
  });
}

/** A Temporal on that Postgres. */
export function temporalOf(region: TestRegion, postgres: Postgres, id = 'temporal'): Temporal {
  return new Temporal(region.chart('runtime'), id, {
    image: image('temporal'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    database: postgres.database('temporal'),
    visibility: postgres.database('temporal_visibility'),
  });
}

/** A Keycloak with one realm of two clients on that Postgres. */
export function keycloakOf(region: TestRegion, postgres: Postgres, suffix = ''): Keycloak {
  const workload = { plane: 'services' as const, serviceAccount: `identity${suffix}` };
  return new Keycloak(region.chart('identity'), `keycloak${suffix}`, {
    image: image('keycloak'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    database: postgres.database('keycloak'),
    hostname: 'https://login.example.com',
    realm: {
      name: 'somagent',
      clients: [{ clientId: 'acme-agent' }, { clientId: 'globex-agent' }, { clientId: 'somagent-identity', workload }],
    },
  });
}

/** A model server. */
export function slmOf(region: TestRegion, id = 'slm'): Slm {
  return new Slm(region.chart('runtime'), id, { image: image('ray-slm'), plan: region.plan });
}

/** What governs the requests of a service. */
export function governanceOf(region: TestRegion, postgres: Postgres, keycloak: Keycloak, kafka: Kafka, suffix = '') {
  const { plan } = region;
  const store = new ObjectStore(region.chart('data'), `object-store${suffix}`, {
    image: image('object-store'),
    bootstrapImage: image('bootstrap'),
    plan,
    buckets: [policyBucket],
  });
  const policy = new Policy(region.chart('system'), `policy${suffix}`, { image: image('policy'), plan, store });
  const openfga = new OpenFga(region.chart('identity'), `openfga${suffix}`, {
    image: image('openfga'),
    relationsImage: image('relations'),
    plan,
    database: postgres.database('openfga'),
  });
  const control = new Identity(region.chart('services'), `identity${suffix}`, {
    image: image('identity'),
    plan,
    database: postgres.database('identity'),
    keycloak,
    kafka: kafka.user('identity'),
    policy: policy.consumer(),
  });
  return { control, policy: policy.consumer(), relations: openfga.client(), kafka: kafka.user('gateway') };
}

/** Every product of a region, `suffix` appended to each name; and its namespaces. */
export function wholeRegion(region: TestRegion, suffix = ''): void {
  const postgres = postgresOf(region, `postgres${suffix}`);
  const temporal = temporalOf(region, postgres, `temporal${suffix}`);
  const kafka = kafkaOf(region, `kafka${suffix}`, servicesOnKafka);
  schemaRegistryOf(region, `schema-registry${suffix}`);
  const keycloak = keycloakOf(region, postgres, suffix);
  const slm = slmOf(region, `slm${suffix}`);
  new Qdrant(region.chart('data'), `qdrant${suffix}`, { image: image('qdrant'), plan: region.plan, renderer: 'edge' });
  new Embeddings(region.chart('runtime'), `embeddings${suffix}`, { image: image('embeddings'), plan: region.plan });
  const sessions = postgres.database('sessions');
  const services = region.chart('services');
  const governance = governanceOf(region, postgres, keycloak, kafka, suffix);
  new Relations(services, `relations${suffix}`, {
    image: image('relations'),
    openfga: governance.relations,
    kafka: kafka.user('relations'),
    sessions: sessions.reader('sessions_relations'),
    identity: governance.control,
  });
  new Orchestrator(services, `orchestrator${suffix}`, {
    image: image('orchestrator'),
    temporal,
    database: sessions,
    slm,
    kafka: kafka.user('orchestrator'),
    policy: governance.policy,
    identity: governance.control,
  });
  new Gateway(services, `gateway${suffix}`, {
    image: image('gateway'),
    plan: region.plan,
    temporal,
    database: sessions.reader('sessions_gateway'),
    identity: keycloak,
    ...governance,
  });
}

/** The bootstrap of a region; constructed last. */
export function bootstrapOf(region: TestRegion, id = 'bootstrap'): Bootstrap {
  return new Bootstrap(region.chart('system'), id, { image: image('bootstrap'), plan: region.plan });
}

/** The namespaces of a region. */
export function namespacesOf(region: TestRegion, name = 'north'): RegionNamespaces {
  return new RegionNamespaces(region.app, 'namespaces', { region: name });
}
