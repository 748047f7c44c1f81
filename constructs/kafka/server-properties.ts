/** Listeners of a node: what clients use, and the two that only brokers reach. The numbers are Strimzi's. */
export const ports = { clients: 9093, brokers: 9091, controllers: 9090 } as const;

/** User name that creates topics, credentials and rights. */
export const ADMIN = 'kafka-admin';

/** A node of the cluster: broker and controller in one. */
export interface Node {
  readonly id: number;
  readonly host: string;
  readonly ports: typeof ports | { readonly [Listener in keyof typeof ports]: number };
}

/** What differs from one cluster, or one node, to another. */
export interface ServerSettings {
  /** Every node; each is a voter of the metadata quorum. */
  readonly nodes: readonly Node[];
  /** The node that the file is for. `@NODE_ID@` in its host is replaced when it starts. */
  readonly self: Omit<Node, 'id'>;
  /** Address to listen on. */
  readonly bind: string;
  /** Common name of the brokers' certificate. */
  readonly brokerName: string;
  /** Folder of tls.crt, tls.key and ca.crt. */
  readonly certificateFolder: string;
  /** Folder of the log. */
  readonly dataFolder: string;
  readonly replication: Replication;
}

/**
 * `server.properties` of a node. Clients: TLS and SCRAM-SHA-512, nothing else. Between nodes: certificates on both
 * sides. Whoever has no rule may do nothing. Source: https://kafka.apache.org/43/configuration/broker-configs/
 */
export function serverProperties(settings: ServerSettings): string {
  const groups = [
    identity(settings),
    listeners(settings),
    authorization(settings),
    sharedSettings(settings.replication),
  ];
  return groups
    .flatMap((group) => Object.entries(group))
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}

function identity({ nodes, dataFolder }: ServerSettings) {
  const voters = nodes.map(({ id, host, ports: { controllers } }) => `${id}@${host}:${controllers}`);
  return {
    'process.roles': 'broker,controller',
    'node.id': '@NODE_ID@',
    'controller.quorum.voters': voters.join(','),
    'log.dirs': dataFolder,
  };
}

function listeners({ self, bind, certificateFolder }: ServerSettings) {
  const at = (name: string, host: string, port: number) => `${name}://${host}:${port}`;
  return {
    listeners: [
      at('CLIENTS', bind, self.ports.clients),
      at('BROKERS', bind, self.ports.brokers),
      at('CONTROLLERS', bind, self.ports.controllers),
    ].join(','),
    'advertised.listeners': [
      at('CLIENTS', self.host, self.ports.clients),
      at('BROKERS', self.host, self.ports.brokers),
    ].join(','),
    'listener.security.protocol.map': 'CLIENTS:SASL_SSL,BROKERS:SSL,CONTROLLERS:SSL',
    'inter.broker.listener.name': 'BROKERS',
    'controller.listener.names': 'CONTROLLERS',
    'ssl.engine.factory.class': 'MountedCertificate',
    'mounted.certificate.dir': certificateFolder,
    'ssl.enabled.protocols': 'TLSv1.3',
    'ssl.client.auth': 'required',
    'listener.name.clients.ssl.client.auth': 'none',
    'sasl.enabled.mechanisms': 'SCRAM-SHA-512',
    'listener.name.clients.scram-sha-512.sasl.jaas.config':
      'org.apache.kafka.common.security.scram.ScramLoginModule required;',
    // A client whose password was revoked is gone within this time, in milliseconds: it must sign in again.
    'listener.name.clients.connections.max.reauth.ms': 300_000,
    // An attempt with a wrong password costs the guesser this time, in milliseconds.
    'connection.failed.authentication.delay.ms': 250,
  };
}

function authorization({ brokerName }: ServerSettings) {
  return {
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'allow.everyone.if.no.acl.found': false,
    'super.users': `User:CN=${brokerName};User:${ADMIN}`,
  };
}

/** Copies of each partition, and how many of them acknowledge a write with acks=all. */
export interface Replication {
  readonly copies: number;
  readonly inSync: number;
}

/** What every way to run the brokers has in common. */
export function sharedSettings(replication: Replication): Record<string, string | number | boolean> {
  return { ...durability(replication), ...footprint };
}

function durability({ copies, inSync }: Replication) {
  return {
    'auto.create.topics.enable': false,
    'default.replication.factor': copies,
    'min.insync.replicas': inSync,
    'offsets.topic.replication.factor': copies,
    'transaction.state.log.replication.factor': copies,
    'transaction.state.log.min.isr': inSync,
    'share.coordinator.state.topic.replication.factor': copies,
    'share.coordinator.state.topic.min.isr': inSync,
    'unclean.leader.election.enable': false,
  };
}

/** A quiet small broker: its own defaults are made for machines with many cores and disks. */
const footprint = {
  'num.network.threads': 2,
  'num.io.threads': 4,
  'num.replica.fetchers': 1,
  'num.recovery.threads.per.data.dir': 1,
  'background.threads': 2,
  'offsets.topic.num.partitions': 6,
  'transaction.state.log.num.partitions': 6,
  'share.coordinator.state.topic.num.partitions': 3,
  'log.cleaner.dedupe.buffer.size': 8 * 2 ** 20,
  'log.segment.bytes': 64 * 2 ** 20,
  'metadata.log.segment.bytes': 16 * 2 ** 20,
  'metadata.max.retention.bytes': 64 * 2 ** 20,
  'socket.request.max.bytes': 16 * 2 ** 20,
  // A consumer group that starts need not wait 3 s for members that may come.
  'group.initial.rebalance.delay.ms': 0,
} as const;
