// Die Sätze des Dienstes (local-api, `cause/words.rs`) auf Deutsch, nach dem Code der Ursache. `{}` steht für das, was der
// Dienst einsetzt: Namen, Adressen, Zahlen. Was andere Programme sagten, bleibt in deren Sprache.
import type { Sentences } from './causes';

const BY_ITSELF = 'Es wird von selbst erneut versucht.';
const ACCESS_FINE = 'Dein Zugang ist in Ordnung.';

const NETWORK: [string, string][] = [
  ['Virtual Networking is not authorised.', 'Das virtuelle Netz ist nicht erlaubt.'],
  ['The helper for Virtual Networking does not run.', 'Das Hilfsprogramm für das virtuelle Netz läuft nicht.'],
  ['Virtual Networking cannot be had.', 'Das virtuelle Netz ist nicht zu haben.'],
  ['Ask again, or stay with loopback addresses: they work meanwhile.', 'Erneut fragen oder bei Loopback-Adressen bleiben: sie gehen weiterhin.'],
  ['Install or start postern-netd, or stay with loopback addresses: they work meanwhile.', 'postern-netd installieren oder starten, oder bei Loopback-Adressen bleiben: sie gehen weiterhin.'],
  ['Ask an admin. Loopback addresses work meanwhile.', 'Die Administration fragen. Loopback-Adressen gehen weiterhin.'],
  ['Leave another private network, or stay with loopback addresses: they work meanwhile.', 'Ein anderes privates Netz verlassen, oder bei Loopback-Adressen bleiben: sie gehen weiterhin.'],
  ['Loopback addresses work meanwhile. It is tried again by itself.', `Loopback-Adressen gehen weiterhin. ${BY_ITSELF}`],
];

const sentences: Sentences = {
  target_refused: [
    ['The target refused the connection.', 'Das Ziel hat die Verbindung abgelehnt.'],
    ['{} says: {} Nothing listens there. Your access is fine.', `{} sagt: {} Dort hört nichts zu. ${ACCESS_FINE}`],
    ['{} Nothing listens there. Your access is fine.', `{} Dort hört nichts zu. ${ACCESS_FINE}`],
    ['Ask its owner whether it is down. Each new connection is a new try.', 'Die Zuständigen fragen, ob es ausgefallen ist. Jede neue Verbindung ist ein neuer Versuch.'],
  ],
  target_timeout: [
    ['The target did not answer in time.', 'Das Ziel hat nicht rechtzeitig geantwortet.'],
    ['{} Often a firewall between the two is the reason. Your access is fine.', `{} Oft liegt es an einer Firewall dazwischen. ${ACCESS_FINE}`],
    ['Try again, or copy the report for your admin.', 'Erneut versuchen, oder den Bericht für die Administration kopieren.'],
  ],
  target_unroutable: [
    ['The gateway finds no way to the target.', 'Das Gateway findet keinen Weg zum Ziel.'],
    ['{} Your access is fine.', `{} ${ACCESS_FINE}`],
    ["Copy the report for your admin: a route is missing, the resource's host is off, or a firewall forbids the way.", 'Den Bericht für die Administration kopieren: Eine Route fehlt, der Rechner der Ressource ist aus, oder eine Firewall verbietet den Weg.'],
  ],
  target_not_permitted: [
    ['The gateway is not let to the target.', 'Das Gateway darf nicht zum Ziel.'],
    ['{} Your access is fine.', `{} ${ACCESS_FINE}`],
    ["Copy the report for your admin: a firewall or a policy on the gateway's own machine forbids it.", 'Den Bericht für die Administration kopieren: Eine Firewall oder eine Regel auf dem Rechner des Gateways verbietet es.'],
  ],
  target_unresolvable: [
    ['The name of the target is not known.', 'Der Name des Ziels ist unbekannt.'],
    ['{} Your access is fine.', `{} ${ACCESS_FINE}`],
    ["Copy the report for your admin: the resource's host name is wrong, or its DNS is down.", 'Den Bericht für die Administration kopieren: Der Rechnername der Ressource ist falsch, oder sein DNS ist ausgefallen.'],
  ],
  target_unhealthy: [
    ['The target does not answer.', 'Das Ziel antwortet nicht.'],
    ['{} Your access is fine.', `{} ${ACCESS_FINE}`],
    ['Ask its owner whether it is down. The gateways look again by themselves.', 'Die Zuständigen fragen, ob es ausgefallen ist. Die Gateways sehen von selbst wieder nach.'],
  ],
  denied: [
    ['You may not use {} now.', 'Du darfst {} jetzt nicht nutzen.'],
    ['The control plane gives no proof of access for it.', 'Die Control Plane stellt dafür keinen Zugangsnachweis aus.'],
    ['Request access, or ask an admin.', 'Zugang anfragen, oder die Administration fragen.'],
  ],
  lease_expired: [
    ['The proof of access ran out and could not be renewed.', 'Der Zugangsnachweis ist abgelaufen und konnte nicht erneuert werden.'],
    ['The control plane is away.', 'Die Control Plane ist nicht erreichbar.'],
    ['New connections work again when it is back. Open ones go on.', 'Neue Verbindungen gehen wieder, wenn sie zurück ist. Offene laufen weiter.'],
    ['The control plane has not given a new one yet.', 'Die Control Plane hat noch keinen neuen ausgestellt.'],
    ['Open connections go on. It is tried again by itself.', `Offene Verbindungen laufen weiter. ${BY_ITSELF}`],
  ],
  step_up: [
    ['{} asks for a fresh sign-in.', '{} verlangt eine frische Anmeldung.'],
    ['Its policy wants one.', 'Die Regel dafür verlangt eine.'],
    ['Sign in again, then connect again.', 'Neu anmelden, dann erneut verbinden.'],
  ],
  gateway_away: [
    ['{} cannot be reached.', '{} ist nicht erreichbar.'],
    ['No gateway can be reached.', 'Kein Gateway ist erreichbar.'],
    ['{} does not answer.', '{} antwortet nicht.'],
    ['{} do not answer.', '{} antworten nicht.'],
    ['{} does not answer and no other gateway leads there.', '{} antwortet nicht, und kein anderes Gateway führt dorthin.'],
    ['{} do not answer and no other gateway leads there.', '{} antworten nicht, und kein anderes Gateway führt dorthin.'],
    ['Nothing to do here. It is tried again by itself.', `Hier ist nichts zu tun. ${BY_ITSELF}`],
    ['Check the network and firewalls of this computer. It is tried again by itself.', `Netz und Firewalls dieses Rechners prüfen. ${BY_ITSELF}`],
  ],
  node_leaves: [
    ['{} goes out of service within {}.', '{} geht binnen {} außer Betrieb.'],
    ['Open connections over it: {}. They end then.', 'Offene Verbindungen darüber: {}. Sie enden dann.'],
    ['Finish what runs there or connect again; new connections go another way.', 'Beenden, was dort läuft, oder neu verbinden; neue Verbindungen nehmen einen anderen Weg.'],
  ],
  no_gateway: [
    ['{} cannot be reached.', '{} ist nicht erreichbar.'],
    ['Nothing can be reached yet.', 'Noch ist nichts erreichbar.'],
    ['The control plane has named no gateway that leads there.', 'Die Control Plane hat kein Gateway genannt, das dorthin führt.'],
    ['The control plane has named no gateway.', 'Die Control Plane hat kein Gateway genannt.'],
    ['Ask an admin.', 'Die Administration fragen.'],
  ],
  gateway_busy: [
    ['The gateway takes no new connections now.', 'Das Gateway nimmt gerade keine neuen Verbindungen an.'],
    ['{} takes no new connections now.', '{} nimmt gerade keine neuen Verbindungen an.'],
    ['Try again in a moment.', 'Gleich erneut versuchen.'],
  ],
  connection_lost: [
    ['A connection through the gateway broke.', 'Eine Verbindung durch das Gateway ist abgebrochen.'],
    ['A connection through {} broke.', 'Eine Verbindung durch {} ist abgebrochen.'],
    ['Each new connection is a new try.', 'Jede neue Verbindung ist ein neuer Versuch.'],
  ],
  slow: [
    ['{} answers slowly.', '{} antwortet langsam.'],
    ['The last handshake with it took {}.', 'Der letzte Handshake damit dauerte {}.'],
    ['Check the network of this computer. It is measured again by itself.', 'Das Netz dieses Rechners prüfen. Es wird von selbst neu gemessen.'],
  ],
  port_taken: [
    ['{} could not open port {}.', '{} konnte Port {} nicht öffnen.'],
    ['Another program holds {}.', 'Ein anderes Programm belegt {}.'],
    ['{} holds {}.', '{} belegt {}.'],
    ['Stop that program, or choose another port. It is tried again by itself.', `Jenes Programm beenden, oder einen anderen Port wählen. ${BY_ITSELF}`],
    ['Stop {}, or choose another port. It is tried again by itself.', `{} beenden, oder einen anderen Port wählen. ${BY_ITSELF}`],
  ],
  address_failed: [
    ['{} could not open {}.', '{} konnte {} nicht öffnen.'],
    ['Choose another port, or ask an admin for another address.', 'Einen anderen Port wählen, oder die Administration um eine andere Adresse bitten.'],
  ],
  port_range: [
    ['{} cannot be used in loopback mode.', '{} ist im Loopback-Modus nicht möglich.'],
    ['{} is no port.', '{} ist kein Port.'],
    ['Ports below {} belong to the system.', 'Ports unter {} gehören dem System.'],
    ['Ports go from {} to {} there.', 'Ports gehen dort von {} bis {}.'],
    ['Ports go from {} to {}.', 'Ports gehen von {} bis {}.'],
    ['Use {} to {}, or Virtual Networking.', '{} bis {} nutzen, oder das virtuelle Netz.'],
    ['Use {} to {}.', '{} bis {} nutzen.'],
  ],
  range_taken: [
    ['The address range moved to {}.', 'Der Adressbereich ist nach {} gewechselt.'],
    ["Something had the organisation's range. It is free again.", 'Etwas belegte den Bereich der Organisation. Er ist wieder frei.'],
    ['Nothing for names; look up addresses you wrote down.', 'Bei Namen nichts; notierte Adressen neu nachsehen.'],
  ],
  dns_taken: [
    ['Names of the virtual network are not asked of Postern.', 'Nach Namen des virtuellen Netzes wird Postern nicht gefragt.'],
    ['Names under {} go to another resolver.', 'Namen unter {} gehen an einen anderen Resolver.'],
    ['Loopback addresses and addresses of the virtual network still work. Look with postern doctor.', 'Loopback-Adressen und Adressen des virtuellen Netzes gehen weiterhin. Mit postern doctor nachsehen.'],
  ],
  names_left_out: [
    ['Names without an answer: {}.', 'Namen ohne Antwort: {}.'],
    ['Their zones could not be registered: they would cover the control plane or a gateway, this system refuses them, or there are too many.', 'Ihre Zonen konnten nicht eingetragen werden: Sie würden die Control Plane oder ein Gateway umfassen, dieses System lehnt sie ab, oder es sind zu viele.'],
    ["Use the addresses of these resources, or ask an admin for names in the organisation's own zone.", 'Die Adressen dieser Ressourcen benutzen, oder die Administration um Namen in der eigenen Zone der Organisation bitten.'],
  ],
  helper_refused: NETWORK,
  helper_missing: NETWORK,
  network_unavailable: NETWORK,
  network_behind: [
    ['The virtual network is not up to date.', 'Das virtuelle Netz ist nicht auf dem neuesten Stand.'],
    ['What was there before works. It is tried again by itself.', `Was vorher da war, geht. ${BY_ITSELF}`],
  ],
  clock_skew: [
    ["This computer's clock is {} slow.", 'Die Uhr dieses Rechners geht {} nach.'],
    ["This computer's clock is {} fast.", 'Die Uhr dieses Rechners geht {} vor.'],
    ['Certificates begin and end by the clock, so sign-in and connections may be refused.', 'Zertifikate gelten nach der Uhr, daher können Anmeldung und Verbindungen abgelehnt werden.'],
    ['Turn on automatic time, then try again.', 'Automatische Uhrzeit einschalten, dann erneut versuchen.'],
  ],
  control_away: [
    ['The control plane is away.', 'Die Control Plane ist nicht erreichbar.'],
    ['{} does not answer: {}', '{} antwortet nicht: {}'],
    ['Open connections go on, and new ones for about an hour. It is tried again by itself.', `Offene Verbindungen laufen weiter, neue gehen noch etwa eine Stunde. ${BY_ITSELF}`],
  ],
  not_our_server: [
    ['{} is not a Postern control plane.', '{} ist keine Control Plane von Postern.'],
    ['Check the address with your admin.', 'Die Adresse mit der Administration prüfen.'],
  ],
  sign_in_ends: [
    ['The sign-in ends in less than {}.', 'Die Anmeldung endet in weniger als {}.'],
    ['Each sign-in has an end that your organisation sets.', 'Jede Anmeldung hat ein Ende, das deine Organisation festlegt.'],
    ['Sign in again now, and open connections stay open.', 'Jetzt neu anmelden, und offene Verbindungen bleiben offen.'],
  ],
  sign_in_ended: [
    ['You were signed out.', 'Du wurdest abgemeldet.'],
    ['Sign in again: postern login.', 'Neu anmelden: postern login.'],
  ],
  password_once: [
    ['Your password was for one use.', 'Dein Passwort galt nur einmal.'],
    ['It was set by an admin.', 'Die Administration hat es gesetzt.'],
    ['Choose a new one: postern password.', 'Ein neues wählen: postern password.'],
  ],
  certificate_ends: [
    ['The device certificate ends in less than {}.', 'Das Gerätezertifikat endet in weniger als {}.'],
    ['It could not be renewed so far.', 'Es konnte bisher nicht erneuert werden.'],
    ['Check that the control plane can be reached. It is tried again by itself.', `Prüfen, ob die Control Plane erreichbar ist. ${BY_ITSELF}`],
  ],
  certificate_ended: [
    ['The device certificate has ended, so new connections fail.', 'Das Gerätezertifikat ist abgelaufen, neue Verbindungen schlagen fehl.'],
    ['It could not be renewed in time.', 'Es konnte nicht rechtzeitig erneuert werden.'],
    ['It is renewed as soon as the control plane answers; else sign in again.', 'Es wird erneuert, sobald die Control Plane antwortet; sonst neu anmelden.'],
  ],
  renewal_failed: [
    ['The device certificate could not be renewed.', 'Das Gerätezertifikat konnte nicht erneuert werden.'],
    ['It still holds. It is tried again by itself.', `Es gilt noch. ${BY_ITSELF}`],
  ],
  keyring_locked: [
    ['The keyring is locked, so your device key cannot be read.', 'Der Schlüsselbund ist gesperrt, dein Geräteschlüssel ist nicht lesbar.'],
    ['{} opens with your login password. {}', '{} öffnet sich mit deinem Anmeldepasswort. {}'],
    ['Unlock it, keep the key in memory until you quit, or in a file only you can read.', 'Ihn öffnen, den Schlüssel bis zum Beenden im Speicher halten, oder in einer Datei, die nur du lesen kannst.'],
  ],
  keyring_missing: [
    ['There is no keyring, so your device key cannot be kept there.', 'Es gibt keinen Schlüsselbund, der deinen Geräteschlüssel aufbewahren könnte.'],
    ['Keep the key in memory until you quit, or in a file only you can read.', 'Den Schlüssel bis zum Beenden im Speicher halten, oder in einer Datei, die nur du lesen kannst.'],
  ],
  versions_differ: [
    ['The service is of another version than this program.', 'Der Dienst hat eine andere Version als dieses Programm.'],
    ['This program is {}, the service {}; it was not restarted after the update.', 'Dieses Programm ist {}, der Dienst {}; er wurde nach dem Update nicht neu gestartet.'],
    ['Restart the service; 1 connection closes.', 'Den Dienst neu starten; 1 Verbindung wird getrennt.'],
    ['Restart the service; {} connections close.', 'Den Dienst neu starten; {} Verbindungen werden getrennt.'],
    ['Restart the service.', 'Den Dienst neu starten.'],
  ],
  service_gone: [
    ['The Postern service does not run.', 'Der Dienst von Postern läuft nicht.'],
    ['Start it: postern service run, or with your session: postern service install.', 'Ihn starten: postern service run, oder mit der Sitzung: postern service install.'],
  ],
  few_files: [
    ['Only {} files may be open at a time.', 'Nur {} Dateien dürfen zugleich offen sein.'],
    ['That is enough for about {} connections.', 'Das reicht für etwa {} Verbindungen.'],
    ['Raise the limit (ulimit -n, LimitNOFILE).', 'Die Grenze anheben (ulimit -n, LimitNOFILE).'],
  ],
  not_saved: [
    ['What changes now is forgotten when the service stops.', 'Was sich jetzt ändert, ist vergessen, wenn der Dienst endet.'],
    ['Make room on the disk, or let the folder be written.', 'Platz schaffen, oder das Schreiben in den Ordner erlauben.'],
  ],
  status_api: [
    ['The status for scripts is not served.', 'Der Status für Skripte wird nicht angeboten.'],
    ['Choose another address: --status-listen.', 'Eine andere Adresse wählen: --status-listen.'],
  ],
  at_start: [
    ['It was met when the service started.', 'Es fiel beim Start des Dienstes auf.'],
    ['It is said again at the next start if it lasts.', 'Beim nächsten Start wird es wieder gesagt, wenn es andauert.'],
  ],
};

export default sentences;
