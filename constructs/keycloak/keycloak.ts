import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName } from '../core/labels.ts';
import { workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { type Plane, placeOf, planeNamespace } from '../core/region-chart.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { distinct, httpsOrigin, InvalidPropError, nodePort } from '../core/validate.ts';
import {
  type Connection,
  DeploymentWorkload,
  JobWorkload,
  ScheduledWorkload,
  type ScheduledWorkloadProps,
  ServiceAddress,
} from '../core/workload.ts';
import type { Database } from '../postgres/database.ts';

const HTTPS = 8443;
const MANAGEMENT = 9000;
/** Name of the server in the paths of tokens. */
const TARGET = 'keycloak';
const KUBERNETES_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
/** Transport of the embedded caches, and its failure detection. */
const CACHE_PORTS = [7800, 57_800];
/** Verified TLS; a server that died without a word is noticed within 30 s. */
const JDBC_PARAMETERS = 'sslmode=verify-full&sslrootcert=/secrets/ca/ca.crt&tcpKeepAlive=true&socketTimeout=30';
/** User name of the service account that applies the realm. */
const ADMIN_CLIENT = 'somagent-bootstrap';

/** What this construct needs to know of a realm; the whole document goes to the realm Job as it is. */
export interface RealmDocument {
  readonly name: string;
  readonly clients: readonly {
    readonly clientId: string;
    /** The pod that signs in as this client, by plane of the region and ServiceAccount; others have a secret. */
    readonly workload?: { readonly plane: Plane; readonly serviceAccount: string } | undefined;
  }[];
  /** People with a generated first password. */
  readonly people?: readonly { readonly username: string }[] | undefined;
}

/** Options of {@link Keycloak}. */
export interface KeycloakProps {
  /** Image `somagent/keycloak`, built for PostgreSQL. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job applies the realm. */
  readonly bootstrapImage: string;
  /** Where the administrator, client secrets and certificates are asked for. */
  readonly plan: SecretPlan;
  /** Where realms, clients and users are kept. */
  readonly database: Database;
  /** Public address: the beginning of the `iss` claim of every token, such as `https://login.example.com`. */
  readonly hostname: string;
  /** The realm as data (`Realm` of the bootstrap service). */
  readonly realm: RealmDocument;
  /**
   * Where Keycloak tells that a person's session has ended (OpenID Connect Back-Channel Logout 1.0). Whoever listens
   * there admits this construct's `network`.
   * @default nowhere
   */
  readonly logoutUrl?: string;
  /** Where the Kubernetes API is: Keycloak fetches the keys of workloads there. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /** Opens the HTTPS port on every node. @default reachable within the cluster only */
  readonly exposure?: { readonly nodePort: number };
  /** Further DNS names of the certificate. @default the host of `hostname` */
  readonly certificateNames?: readonly string[];
  /** IP addresses of the certificate. @default none */
  readonly certificateAddresses?: readonly string[];
  /** Number of pods. @default 1 */
  readonly replicas?: number;
  /** Of each pod. @default 100m and 448Mi promised, 768Mi at most */
  readonly resources?: Resources;
}

/** What a run of the bootstrap service is, besides its name and its time. */
type Task = Pick<
  ScheduledWorkloadProps,
  'image' | 'command' | 'env' | 'secrets' | 'files' | 'resources' | 'suspended' | 'verifiesWorkloads'
>;

const ADMINISTRATION: Resources = { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' };
const SERVER: Resources = { cpu: '100m', memory: '448Mi', memoryLimit: '768Mi' };

/** Keycloak with one realm, applied from data. Source: https://www.keycloak.org/server/all-config */
export class Keycloak extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  readonly network: PodNetwork;
  /** Name of the realm. */
  readonly realm: string;
  /** The `iss` claim of the realm's tokens. */
  readonly issuer: string;
  /** Where the realm's keys are, within the cluster. */
  readonly jwksUrl: string;
  readonly #instance: string;
  readonly #namespace: string;
  readonly #plan: SecretPlan;
  readonly #subjects: Readonly<Record<string, string>>;

  constructor(scope: Construct, id: string, props: KeycloakProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#namespace = placeOf(this).namespace;
    this.#plan = props.plan;
    this.realm = props.realm.name;
    this.#subjects = this.#subjectsOf(props.realm);
    this.issuer = `${httpsOrigin('hostname', props.hostname)}/realms/${this.realm}`;
    const address = this.#address(props);
    this.host = address.host;
    this.jwksUrl = `https://${this.host}:${HTTPS}/realms/${this.realm}/protocol/openid-connect/certs`;
    const server = this.#server(props);
    this.network = server.network;
    if (props.exposure) this.network.allowFromAnywhere(HTTPS);
    this.#realmJob(props).node.addDependency(server, address);
  }

  /** Secret of a client of the realm (keys `username`, `password`), in a namespace. */
  clientSecret(clientId: string, namespace: string): SecretRef {
    return this.#plan.password(`${this.#instance}-client-${clientId}`, clientId, namespace);
  }

  /**
   * Admits a pod that signs in as a client of the realm by its own token, which is for the realm only.
   * @throws InvalidPropError when the realm declares another pod, or none, for that client
   */
  workloadClient(clientId: string, client: PodNetwork): Connection {
    const subject = client.workloadSubject();
    if (this.#subjects[clientId] !== subject) {
      throw new InvalidPropError(
        `realm.clients.${clientId}.workload`,
        this.#subjects[clientId],
        subject,
        'Declare this pod.',
      );
    }
    client.allowTo(this.network, [HTTPS]);
    return {
      env: {
        KEYCLOAK_URL: `https://${this.host}:${HTTPS}`,
        KEYCLOAK_REALM: this.realm,
        KEYCLOAK_CA_FILE: '/secrets/ca/ca.crt',
        KEYCLOAK_TOKEN_FILE: workloadTokenPath(TARGET),
      },
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) }],
      workloadTokens: [{ target: TARGET, audience: this.issuer }],
    };
  }

  /** Secret of a declared person (keys `username`, `password`), in a namespace. */
  userSecret(username: string, namespace: string): SecretRef {
    return this.#plan.password(`${this.#instance}-user-${username}`, username, namespace);
  }

  #subjectsOf({ clients }: RealmDocument): Readonly<Record<string, string>> {
    return Object.fromEntries(
      clients.flatMap(({ clientId, workload }) =>
        workload === undefined
          ? []
          : [
              [
                clientId,
                `system:serviceaccount:${planeNamespace(this.#plan.region, workload.plane)}:${workload.serviceAccount}`,
              ],
            ],
      ),
    );
  }

  get #hasWorkloads(): boolean {
    return Object.keys(this.#subjects).length > 0;
  }

  #identity(component: string) {
    return { product: 'keycloak', instance: this.#instance, component };
  }

  #address({ exposure }: KeycloakProps): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
      ...(exposure && { nodePorts: { https: nodePort('exposure.nodePort', exposure.nodePort) } }),
    });
  }

  #server(props: KeycloakProps): DeploymentWorkload {
    const { database } = props;
    const server = new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['/opt/keycloak/bin/kc.sh', 'start', '--optimized'],
      replicas: props.replicas ?? 1,
      env: this.#environment(props),
      ports: { https: HTTPS, management: MANAGEMENT },
      secrets: [
        { path: '/secrets/tls', secret: this.#certificate(props) },
        { path: '/secrets/ca', secret: database.authority(this.#namespace) },
      ],
      scratch: { '/tmp': '128Mi', '/opt/keycloak/data': '128Mi' },
      // Keycloak looks for the token there, and for no other place.
      ...(this.#hasWorkloads && { verifiesWorkloads: { directory: KUBERNETES_DIR } }),
      resources: props.resources ?? SERVER,
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'https', port: MANAGEMENT, path: '/health/ready', timeoutSeconds: 5 },
        liveness: { scheme: 'https', port: MANAGEMENT, path: '/health/live', periodSeconds: 15, timeoutSeconds: 5 },
        startup: {
          scheme: 'https',
          port: MANAGEMENT,
          path: '/health/started',
          periodSeconds: 3,
          failureThreshold: 200,
        },
      },
    });
    server.network.allowTo(database.network, [database.port]);
    server.network.allowTo(server.network, CACHE_PORTS);
    if (this.#hasWorkloads) server.network.allowToApiServer(props.apiServer);
    return server;
  }

  #environment({ database, hostname }: KeycloakProps) {
    const admin = this.#admin();
    const role = database.credentials(this.#namespace);
    return {
      KC_HOSTNAME: hostname,
      // Services inside the cluster fetch keys by the inner name; tokens still carry the public one.
      KC_HOSTNAME_BACKCHANNEL_DYNAMIC: 'true',
      KC_HTTP_ENABLED: 'false',
      KC_HTTPS_CERTIFICATE_FILE: '/secrets/tls/tls.crt',
      KC_HTTPS_CERTIFICATE_KEY_FILE: '/secrets/tls/tls.key',
      KC_DB_URL: `jdbc:postgresql://${database.host}:${database.port}/${database.name}?${JDBC_PARAMETERS}`,
      KC_DB_USERNAME: { secret: role, key: 'username' },
      KC_DB_PASSWORD: { secret: role, key: 'password' },
      KC_DB_POOL_MAX_SIZE: '20',
      // A failover takes seconds; a connection that is asked for meanwhile is worth waiting for, not longer.
      KC_DB_POOL_ACQUISITION_TIMEOUT: '10s',
      KC_DB_CONNECT_TIMEOUT: '3s',
      // Keycloak calls services of the region when a session ends.
      KC_TRUSTSTORE_PATHS: '/secrets/ca/ca.crt',
      KC_BOOTSTRAP_ADMIN_CLIENT_ID: { secret: admin, key: 'username' },
      KC_BOOTSTRAP_ADMIN_CLIENT_SECRET: { secret: admin, key: 'password' },
      // One whole value replaces the start script's own, which is made for larger machines.
      JAVA_OPTS: [
        '-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms64m -Xmx320m -XX:MaxMetaspaceSize=224m -Xss512k',
        '-Djava.net.preferIPv4Stack=true -Dfile.encoding=UTF-8 -Djava.security.egd=file:/dev/urandom',
      ].join(' '),
    };
  }

  #admin(): SecretRef {
    return this.#plan.password(`${this.#instance}-admin`, ADMIN_CLIENT, this.#namespace);
  }

  #certificate({ hostname, certificateNames, certificateAddresses = [] }: KeycloakProps): SecretRef {
    const names = certificateNames ?? [new URL(hostname).hostname];
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      {
        commonName: this.#instance,
        dnsNames: [...new Set([this.#instance, this.host, ...names])],
        ipAddresses: certificateAddresses,
        usages: ['server'],
      },
      this.#namespace,
    );
  }

  #realmJob(props: KeycloakProps): JobWorkload {
    const identity = this.#identity('realm');
    const plan = new ContentConfigMap(this, 'realm', {
      ...identity,
      name: `${this.#instance}-realm`,
      files: { 'plan.json': JSON.stringify(props.realm, undefined, 2) },
    });
    const task = {
      image: props.bootstrapImage,
      command: ['node', '/app/main.js', 'realm'],
      env: {
        ...this.#administration(),
        CLIENTS_DIR: '/secrets/clients',
        USERS_DIR: '/secrets/users',
        ...(props.logoutUrl !== undefined && { LOGOUT_URL: props.logoutUrl }),
        ...(this.#hasWorkloads && { WORKLOAD_SUBJECTS: JSON.stringify(this.#subjects) }),
      },
      verifiesWorkloads: this.#hasWorkloads,
      secrets: [...this.#administrationSecrets(), ...this.#givenSecrets(props.realm)],
      files: [{ path: '/etc/soma', config: plan }],
      resources: ADMINISTRATION,
    };
    const job = new JobWorkload(this, 'realm-job', { ...identity, ...task });
    job.network.allowTo(this.network, [HTTPS]);
    if (this.#hasWorkloads) job.network.allowToApiServer(props.apiServer);
    // What was changed by hand is shown and repaired, and keys are rotated, also while nothing is deployed.
    const repair = this.#scheduled('realm-repair', '23 * * * *', task);
    const rotation = this.#scheduled('signing-keys', '0 0 1 1 *', {
      ...task,
      command: ['node', '/app/main.js', 'realm-keys'],
      env: { ...this.#administration(), ROTATE: 'now' },
      secrets: this.#administrationSecrets(),
      verifiesWorkloads: false,
      suspended: true,
    });
    for (const { network } of [repair, rotation]) network.allowTo(this.network, [HTTPS]);
    if (this.#hasWorkloads) repair.network.allowToApiServer(props.apiServer);
    return job;
  }

  #scheduled(component: string, schedule: string, task: Task): ScheduledWorkload {
    const name = `${this.#instance}-${component}`;
    const limits = { retries: 2, deadlineSeconds: 600 };
    return new ScheduledWorkload(this, component, { ...this.#identity(component), ...task, ...limits, name, schedule });
  }

  #administration() {
    return {
      PLAN: '/etc/soma/plan.json',
      KEYCLOAK_URL: `https://${this.host}:${HTTPS}`,
      KEYCLOAK_CA_FILE: '/secrets/ca/ca.crt',
      ADMIN_DIR: '/secrets/admin',
    };
  }

  #administrationSecrets() {
    return [
      { path: '/secrets/ca', secret: this.#plan.authorityCertificate(this.#namespace) },
      { path: '/secrets/admin', secret: this.#admin() },
    ];
  }

  /** The secrets that clients and people are given, where the Job reads them. */
  #givenSecrets(realm: RealmDocument) {
    const clients = this.#everywhere(
      'realm.clients',
      realm.clients.filter(({ workload }) => workload === undefined).map(({ clientId }) => clientId),
      'client',
    );
    const people = this.#everywhere(
      'realm.people',
      (realm.people ?? []).map(({ username }) => username),
      'user',
    );
    return [
      ...clients.map((name) => ({
        path: `/secrets/clients/${name}`,
        secret: this.clientSecret(name, this.#namespace),
      })),
      ...people.map((name) => ({ path: `/secrets/users/${name}`, secret: this.userSecret(name, this.#namespace) })),
    ];
  }

  /** A secret is in the system and services planes too, where its owner fetches it. */
  #everywhere(field: string, names: readonly string[], kind: 'client' | 'user'): readonly string[] {
    for (const name of distinct(field, names)) {
      for (const plane of ['system', 'services'] as const) {
        const namespace = planeNamespace(this.#plan.region, plane);
        if (kind === 'client') this.clientSecret(name, namespace);
        else this.userSecret(name, namespace);
      }
    }
    return names;
  }
}
