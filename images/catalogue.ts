import { sharedPython } from './stage/python-service.ts';
import { user, versions } from './versions.ts';

/** What an image is made from. Paths are relative to the repository. */
export interface ImageDefinition {
  /** One line for `images list`. */
  readonly description: string;
  /** Image that the Containerfile's `ARG BASE` stands for; absent when it starts from scratch. */
  readonly parent?: string;
  /** Files and folders that decide the content, besides the image's own folder. */
  readonly inputs: readonly string[];
  /** Pinned versions that decide the content; each is given to the Containerfile as a build argument. */
  readonly arguments?: Readonly<Record<string, string>>;
  /** Only a step on the way to another image: never pushed. */
  readonly intermediate?: boolean;
}

const uid = { UID: String(user) };

/** The rules of the platform, and what compiles them. */
const corpus = [
  ...['data', 'deploy', 'facts', 'gateway', 'lib', 'orchestrator', 'tools', 'training'].map(
    (room) => `policies/${room}`,
  ),
  'policies/bundle',
  'policies/runtime',
  'images/stage/policy.ts',
  'images/stage/go.ts',
  'cluster/toolchain/opa/go.mod',
  'cluster/toolchain/opa/go.sum',
];

/** An image that runs one bundled Node service at /app/main.js. */
function service(name: string, description: string, inputs: readonly string[] = []) {
  return {
    description,
    parent: 'node' as const,
    inputs: [
      `services/${name}`,
      'images/stage/service.ts',
      `package-lock.json#services/${name}`,
      'package.json#devDependencies.esbuild',
      ...inputs,
    ],
    arguments: uid,
  };
}

/** An image that runs one of our services in Python: its package from `services/<folder>`. */
function pythonService(folder: string, name: string, description: string) {
  return {
    description,
    parent: 'base' as const,
    inputs: ['images/stage/python.ts', 'images/stage/python-service.ts', `services/${folder}/${name}`, ...sharedPython],
    arguments: { ...uid, PYTHON: versions.python },
  };
}

const definitions = {
  debian: {
    description: 'Debian root file system, from its packages',
    inputs: ['images/stage/debian.ts'],
    arguments: { RELEASE: versions.debian },
    intermediate: true,
  },
  base: { description: 'Debian with certificates and a user', parent: 'debian', inputs: [], arguments: uid },
  pause: { description: 'Holds the namespaces of a pod', inputs: ['images/stage/go.ts'] },
  coredns: {
    description: 'Cluster DNS',
    inputs: ['images/stage/go.ts', 'cluster/toolchain/coredns/go.mod', 'cluster/toolchain/coredns/go.sum'],
    arguments: uid,
  },
  node: {
    description: 'Node.js for the services',
    parent: 'base',
    inputs: ['images/stage/node.ts', 'package.json#devDependencies.node'],
    arguments: uid,
  },
  postgres: {
    description: 'PostgreSQL with Patroni',
    parent: 'base',
    inputs: ['images/stage/python.ts'],
    arguments: { ...uid, POSTGRESQL: versions.postgresql, PYTHON: versions.python },
  },
  temporal: {
    description: 'Temporal server and its schema',
    parent: 'base',
    inputs: ['images/stage/go.ts', 'cluster/toolchain/temporal/go.mod', 'cluster/toolchain/temporal/go.sum'],
    arguments: uid,
  },
  java: { description: 'Debian with a Java runtime', parent: 'base', inputs: [], arguments: uid, intermediate: true },
  kafka: {
    description: 'Kafka in KRaft mode',
    parent: 'java',
    inputs: ['images/stage/kafka.ts', 'images/stage/maven.ts'],
    arguments: uid,
  },
  openfga: {
    description: 'OpenFGA server',
    // With Node, because its child adds the service that migrates its database.
    parent: 'node',
    inputs: ['images/stage/go.ts', 'cluster/toolchain/openfga/go.mod', 'cluster/toolchain/openfga/go.sum'],
    arguments: uid,
  },
  'schema-registry': {
    description: 'Apicurio Registry',
    parent: 'java',
    inputs: ['images/stage/apicurio.ts', 'images/stage/maven.ts'],
    arguments: { ...uid, APICURIO: versions.apicurio, APICURIO_SHA256: versions.apicurioSha256 },
  },
  keycloak: {
    description: 'Keycloak, built for PostgreSQL',
    parent: 'java',
    inputs: ['images/stage/keycloak.ts'],
    arguments: { ...uid, KEYCLOAK: versions.keycloak, KEYCLOAK_SHA256: versions.keycloakSha256 },
  },
  bootstrap: service('bootstrap', 'Jobs that make secrets, databases, schemas, realms', [
    'images/stage/go.ts',
    'cluster/toolchain/temporal/go.mod',
    'cluster/toolchain/temporal/go.sum',
    // What an incompatible schema breaks is said by the same comparison that guards the contracts.
    'services/events',
  ]),
  // Stands on the server's own image, because its `migrate` runs that program.
  relations: {
    ...service('relations', 'Relations: model, sync and reconciliation'),
    parent: 'openfga',
  },
  gateway: service('gateway', 'HTTP API of sessions'),
  analytics: {
    ...service('analytics', 'From Kafka into ClickHouse, reports, forecast', ['images/stage/python.ts']),
    arguments: { ...uid, PYTHON: versions.python },
  },
  audit: service('audit', 'Audit log, its API and its witness'),
  identity: service('identity', 'Tenants, people, keys, training mode, kill switch'),
  'memory-gateway': service('memory-gateway', 'Memory of agents'),
  orchestrator: service('orchestrator', 'Temporal worker of sessions'),
  'object-store': {
    description: 'S3 over a file system',
    parent: 'base',
    inputs: ['images/stage/go.ts', 'cluster/toolchain/versitygw/go.mod', 'cluster/toolchain/versitygw/go.sum'],
    arguments: uid,
  },
  policy: service('policy', 'The compiled policies and their publisher', corpus),
  opa: { description: 'OPA with the policies, for admission', parent: 'base', inputs: corpus, arguments: uid },
  scaler: service('scaler', 'Scales the workers of sessions'),
  training: {
    ...service('training', 'Training mode: the service, Ray, JAX and the model to begin with', [
      'images/stage/python.ts',
      'images/stage/training.ts',
      'services/slm',
    ]),
    arguments: { ...uid, PYTHON: versions.python },
  },
  qdrant: pythonService('vector-store', 'somagent_vectors', "Qdrant's REST API over its embedded engine"),
  embeddings: pythonService(
    'embeddings',
    'somagent_embeddings',
    'Sentences to vectors, and the model all-MiniLM-L6-v2',
  ),
  clickhouse: {
    description: 'The engine of ClickHouse behind its HTTP protocol',
    parent: 'base',
    inputs: ['images/stage/clickhouse.ts', 'images/stage/python.ts', 'services/clickhouse-front/clickhouse_front'],
    arguments: { ...uid, PYTHON: versions.python },
  },
  'ray-slm': {
    description: 'Ray Serve, llama.cpp and the bundled model',
    parent: 'base',
    inputs: ['images/stage/python.ts', 'images/stage/slm.ts', 'services/slm'],
    arguments: { ...uid, PYTHON: versions.python },
  },
} as const satisfies Record<string, ImageDefinition>;

/** Name of an image: the last part of its repository, `somagent/<name>`. */
export type ImageName = keyof typeof definitions;

/** All images, parents before children. */
export const imageNames = Object.keys(definitions) as readonly ImageName[];

/** The definition of an image, with its parent as a name of the catalogue. */
export function imageDefinition(name: ImageName): ImageDefinition & { readonly parent?: ImageName } {
  return definitions[name];
}

/** Checks a name that a person gave. @throws Error that lists the names there are. */
export function imageName(text: string): ImageName {
  const found = imageNames.find((name) => name === text);
  if (found === undefined) throw new Error(`unknown image "${text}"; known images: ${imageNames.join(', ')}`);
  return found;
}

/** The images named and all that they are built on, parents first. No names means every image. */
export function withParents(names: readonly ImageName[] = imageNames): ImageName[] {
  const needed = new Set<ImageName>();
  const need = (name: ImageName) => {
    const { parent } = imageDefinition(name);
    if (parent !== undefined) need(parent);
    needed.add(name);
  };
  names.forEach(need);
  return [...needed];
}
